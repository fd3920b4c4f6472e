//! The table: a row for each peer, the one with most bytes first.

use std::net::SocketAddr;

use super::{
    notes::Notes,
    paint::{Colour, Paint},
};
use crate::talk::summary::{Endpoint, Peer, Role, Summary, Traffic};

const COLUMNS: usize = 9;
const HEAD: [&str; COLUMNS] =
    ["PROCESS", "PROTO", "REMOTE", "NAME", "SENT", "BYTES", "RECV", "BYTES", "TIME"];

/// Columns that are text, and begin at the left.
const PROCESS: usize = 0;
const PROTOCOL: usize = 1;
const REMOTE: usize = 2;
const NAME: usize = 3;

/// What is left of them on a narrow terminal, step by step.
const LEAST: [(usize, usize); 5] = [(NAME, 16), (REMOTE, 20), (PROCESS, 7), (NAME, 5), (REMOTE, 15)];

/// Between two columns, before what stands below its row, and in place of what is left out.
const GAP: &str = "  ";
const INDENT: &str = "       ";
const LEFT_OUT: &str = "..";

type Cells = [String; COLUMNS];

/// The table, in a terminal of this width if it is for one.
pub(super) fn text(summary: &Summary, paint: Paint, width: Option<usize>) -> String {
    let mut rows: Vec<_> = summary.peers().into_iter().map(|peer| (cells(peer), Notes::of(peer))).collect();
    let others = summary.others();
    if others.traffic.packets.total() > 0 {
        let mut cells = counts(&others.traffic);
        cells[REMOTE] = "others".into();
        rows.push((cells, Notes::of(others)));
    }
    let mut out = String::from("\n");
    if !rows.is_empty() {
        let widths = widths(&rows, width);
        out += &paint.paint(Some(Colour::Bold), line(&HEAD.map(String::from), &widths).trim_end());
        out.push('\n');
        for (cells, notes) in &rows {
            row(&mut out, &line(cells, &widths), notes, paint, width);
        }
    }
    let link = summary.link().packets.total();
    let is_all = if rows.is_empty() { "Nobody was talked to; " } else { "" };
    out += &format!("{is_all}{link} packets of the link itself, such as ARP\n");
    out
}

fn cells(peer: &Peer) -> Cells {
    let mut cells = counts(&peer.traffic);
    let Endpoint { protocol, address, port, role } = peer.endpoint;
    cells[PROCESS] = peer.process.clone().unwrap_or_default();
    cells[PROTOCOL] = super::protocol_name(protocol);
    cells[REMOTE] = match (port, role) {
        (Some(port), Role::Client) => SocketAddr::new(address, port).to_string(),
        (Some(port), Role::Server) => format!("{address} -> :{port}"),
        (None, _) => address.to_string(),
    };
    let mut names: Vec<_> = peer.names.iter().map(|name| &name.name[..]).collect();
    let first = names.first().copied().unwrap_or_default();
    names.sort_unstable();
    names.dedup();
    cells[NAME] = match names.len() {
        0 | 1 => first.into(),
        more => format!("{first} +{}", more - 1),
    };
    cells
}

fn counts(traffic: &Traffic) -> Cells {
    let Traffic { packets, bytes, .. } = traffic;
    [
        String::new(),
        String::new(),
        String::new(),
        String::new(),
        packets.sent.to_string(),
        short(bytes.sent),
        packets.received.to_string(),
        short(bytes.received),
        format!("{:.3}s", traffic.duration().as_secs_f64()),
    ]
}

/// A number of bytes in few signs.
fn short(bytes: u64) -> String {
    let mut rest = bytes;
    let mut units = "kMGTPE".chars();
    let mut unit = None;
    // As a tenth of the unit, cut and not rounded.
    while rest >= if unit.is_none() { 100_000 } else { 10_000 } {
        rest /= if unit.is_none() { 100 } else { 1000 };
        unit = units.next();
    }
    match unit {
        None => bytes.to_string(),
        Some(unit) => format!("{}.{}{unit}", rest / 10, rest % 10),
    }
}

/// The columns' widths. Where the terminal is too narrow, names and addresses are cut.
fn widths(rows: &[(Cells, Notes)], terminal: Option<usize>) -> [usize; COLUMNS] {
    let mut widths = HEAD.map(str::len);
    for (cells, _) in rows {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = cell.len().max(*width);
        }
    }
    for column in [PROCESS, NAME] {
        if rows.iter().all(|(cells, _)| cells[column].is_empty()) {
            widths[column] = 0;
        }
    }
    for (column, least) in LEAST {
        let excess = terminal.map_or(0, |terminal| length(&widths).saturating_sub(terminal));
        widths[column] = widths[column].min(widths[column].saturating_sub(excess).max(least));
    }
    widths
}

/// A row's length.
fn length(widths: &[usize; COLUMNS]) -> usize {
    widths.iter().filter(|width| **width > 0).map(|width| width + GAP.len()).sum::<usize>() - GAP.len()
}

fn line(cells: &Cells, widths: &[usize; COLUMNS]) -> String {
    let mut parts = Vec::new();
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate().filter(|(_, (_, width))| **width > 0)
    {
        parts.push(match column {
            REMOTE => format!("{:<width$}", without_middle(cell, *width)),
            PROCESS | PROTOCOL | NAME => format!("{:<width$}", without_end(cell, *width)),
            _ => format!("{cell:>width$}"),
        });
    }
    parts.join(GAP)
}

/// The end of an address, with the port, tells as much as its beginning.
fn without_middle(text: &str, width: usize) -> String {
    if text.len() <= width {
        return text.into();
    }
    let kept = width - LEFT_OUT.len();
    format!("{}{LEFT_OUT}{}", &text[..kept.div_ceil(2)], &text[text.len() - kept / 2..])
}

fn without_end(text: &str, width: usize) -> String {
    if text.len() <= width { text.into() } else { format!("{}{LEFT_OUT}", &text[..width - LEFT_OUT.len()]) }
}

/// A row, with its notes behind it, or below where the terminal is too narrow.
fn row(out: &mut String, line: &str, notes: &Notes, paint: Paint, terminal: Option<usize>) {
    let terminal = terminal.unwrap_or(usize::MAX);
    if notes.text.is_empty() {
        *out += line.trim_end();
    } else if line.len() + GAP.len() + notes.text.len() <= terminal {
        *out += &format!("{line}{GAP}{}", paint.paint(notes.colour, &notes.text));
    } else {
        *out += line.trim_end();
        for part in wrapped(&notes.text, terminal.saturating_sub(INDENT.len())) {
            *out += &format!("\n{INDENT}{}", paint.paint(notes.colour, &part));
        }
    }
    out.push('\n');
}

/// The text in lines of this width, but for words that are longer.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => *line += &format!(" {word}"),
            _ => lines.push(word.into()),
        }
    }
    lines
}

#[cfg(test)]
mod tests;
