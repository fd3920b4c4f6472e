//! What was measured, as one table, and whether what is claimed of it holds.

use serde::Serialize;

use crate::statistics::Estimate;

/// Who is compared, in the order of the table's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Who {
    /// The same namespace, veth and NAT, and nothing that captures.
    Nothing,
    /// tcpdump in the namespace.
    Tcpdump,
    /// dumpcap in the namespace.
    Dumpcap,
    /// The original nsntrace, where its binary is given.
    Original,
    /// This one.
    Nsntrace,
}

/// All of them, in order.
const COLUMNS: [Who; 5] = [Who::Nothing, Who::Tcpdump, Who::Dumpcap, Who::Original, Who::Nsntrace];

/// A line of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was done.
    work: String,
    /// What of it was measured, with its unit.
    measure: String,
    /// What each of them takes.
    figures: Vec<(Who, Estimate)>,
    /// What is to hold.
    claim: Option<Claim>,
}

/// What is to hold of a row, and whether it does.
#[derive(Clone, Debug, Serialize)]
struct Claim {
    /// Of what: a ratio, or one of the figures.
    of: String,
    /// The figure that the claim is about.
    figure: Estimate,
    /// The bound, in words.
    bound: String,
    /// Whether all of the figure's interval is within the bound, none of it, or a part.
    holds: &'static str,
}

impl Row {
    /// A row without figures.
    pub fn new(work: impl Into<String>, measure: impl Into<String>) -> Self {
        Self { work: work.into(), measure: measure.into(), figures: Vec::new(), claim: None }
    }

    /// With what one of them takes.
    pub fn with(mut self, who: Who, figure: Estimate) -> Self {
        self.figures.push((who, figure));
        self
    }

    /// Claims that a figure is not larger than this.
    pub fn at_most(self, of: &str, figure: Estimate, limit: f64) -> Self {
        let holds = verdict(figure.high <= limit, figure.low > limit);
        self.claim(of, figure, format!("≤ {}", number(limit)), holds)
    }

    /// Claims that a figure is not smaller than this.
    pub fn at_least(self, of: &str, figure: Estimate, limit: f64) -> Self {
        let holds = verdict(figure.low >= limit, figure.high < limit);
        self.claim(of, figure, format!("≥ {}", number(limit)), holds)
    }

    fn claim(mut self, of: &str, figure: Estimate, bound: String, holds: &'static str) -> Self {
        self.claim = Some(Claim { of: of.to_owned(), figure, bound, holds });
        self
    }

    fn cells(&self, columns: &[Who]) -> Vec<String> {
        let figure = |who: &Who| {
            let found = self.figures.iter().find(|(of, _)| of == who);
            found.map_or_else(String::new, |(_, figure)| words(*figure))
        };
        let claim = match &self.claim {
            None => [String::new(), String::new(), String::new()],
            Some(Claim { of, figure, bound, holds }) => {
                [format!("{of} {bound}"), words(*figure), (*holds).to_owned()]
            }
        };
        let named = [self.work.clone(), self.measure.clone()];
        named.into_iter().chain(columns.iter().map(figure)).chain(claim).collect()
    }
}

/// What to say of a claim that holds, or fails, in all of an interval; or in a part of it.
fn verdict(holds: bool, fails: bool) -> &'static str {
    match (holds, fails) {
        (true, _) => "yes",
        (_, true) => "NO",
        _ => "undecided",
    }
}

/// All rows as one table, in Markdown, which aligns in a terminal too.
pub fn table(rows: &[Row]) -> String {
    let has = |who: &&Who| rows.iter().any(|row| row.figures.iter().any(|(of, _)| of == *who));
    let columns: Vec<Who> = COLUMNS.iter().filter(has).copied().collect();
    let names = columns.iter().map(|who| format!("{who:?}").to_lowercase());
    let head = ["work", "measure"].map(str::to_owned).into_iter().chain(names);
    let head = head.chain(["must be", "is", "holds"].map(str::to_owned)).collect();
    let mut lines: Vec<Vec<String>> = vec![head];
    lines.extend(rows.iter().map(|row| row.cells(&columns)));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let rule = widths.iter().map(|width| "-".repeat(*width)).collect();
    lines.insert(1, rule);
    let mut text = String::new();
    for line in lines {
        for (cell, width) in line.iter().zip(&widths) {
            text.push_str(&format!("| {cell:<width$} "));
        }
        text.push_str("|\n");
    }
    text
}

fn words(Estimate { value, low, high }: Estimate) -> String {
    if low == high {
        return number(value);
    }
    format!("{} ({} to {})", number(value), number(low), number(high))
}

/// Three digits, and all of those before the point.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        _ if value.fract() == 0.0 => 0,
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    // A zero has no sign.
    if text.trim_matches(['-', '0', '.']).is_empty() { text.trim_start_matches('-').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: Estimate = Estimate { value: 0.31, low: 0.28, high: 0.36 };

    #[test]
    fn what_the_noise_cannot_carry_is_undecided() {
        let holds = |row: Row| row.claim.map(|claim| claim.holds);
        let row = || Row::new("work", "ns");
        assert_eq!(holds(row().at_most("", WIDE, 0.4)), Some("yes"));
        assert_eq!(holds(row().at_most("", WIDE, 0.33)), Some("undecided"));
        assert_eq!(holds(row().at_most("", WIDE, 0.2)), Some("NO"));
        assert_eq!(holds(row().at_least("", WIDE, 0.2)), Some("yes"));
        assert_eq!(holds(row().at_least("", WIDE, 0.33)), Some("undecided"));
        assert_eq!(holds(row().at_least("", WIDE, 0.4)), Some("NO"));
    }

    #[test]
    fn a_table_has_only_columns_with_figures() {
        let rows = [
            Row::new("flood", "ns").with(Who::Nsntrace, WIDE).at_most("of it", WIDE, 0.5),
            Row::new("bulk", "Gbit/s").with(Who::Tcpdump, Estimate::exact(12.0)),
        ];
        let table = table(&rows);
        let head = "| work  | measure | tcpdump | nsntrace            | must be      | is                  | holds |";
        assert!(table.starts_with(head), "{table}");
        let flood = "| flood | ns      |         | 0.31 (0.28 to 0.36) | of it ≤ 0.50 | 0.31 (0.28 to 0.36) | yes   |";
        assert!(table.contains(flood), "{table}");
        assert!(table.contains("| bulk  | Gbit/s  | 12      |"), "{table}");
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!([0.333, 12.34, 220.4, 12.0, -0.001].map(number), ["0.33", "12.3", "220", "12", "0.00"]);
    }
}
