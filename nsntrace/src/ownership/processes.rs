//! The processes of a trace, in the order of what happened to them.

use std::{collections::HashMap, time::Duration};

use nsntrace_ebpf::RecordHeader;

use super::{
    Owner,
    news::{Kind, News},
    process::Run,
};

/// So many are kept in mind, or twice as many as live; of more, those that ended first are forgotten.
const MOST: usize = 20_000;

/// How long before its fork is told a process that was there may have begun, in nanoseconds. The kernel tells others its beginning in
/// ticks of 10 ms.
const TICKS: u64 = 20_000_000;

/// What was told of processes so far.
#[derive(Debug)]
pub struct Processes {
    /// By their numbers, the oldest first.
    runs: HashMap<u32, Vec<Run>>,
    count: usize,
    /// With more than so many, some are forgotten.
    limit: usize,
    forgotten: u64,
    /// The number and the name of who has started the first, where that is known.
    starter: Option<(u32, String)>,
}

impl Default for Processes {
    fn default() -> Self {
        Self { runs: HashMap::new(), count: 0, limit: MOST, forgotten: 0, starter: None }
    }
}

impl Processes {
    /// Nothing was told yet; the first will be started by this process.
    pub fn started_by(pid: u32, name: &str) -> Self {
        Self { starter: Some((pid, name.to_owned())), ..Self::default() }
    }

    /// Takes what has happened at `time`, since the epoch.
    pub fn take(&mut self, news: News, time: Duration) {
        let News { time: since, pid, user, name, kind } = news;
        let run = Run { since, became: time, began: time, pid, user, name, ..Run::default() };
        match kind {
            // It was found there before its fork was told.
            Kind::Fork(_)
                if self.latest(pid).is_some_and(|run| run.ended.is_none() && since < run.since + TICKS) => {}
            Kind::Fork(parent) => {
                let before = self.latest(parent);
                let (file, words) =
                    before.map_or_else(Default::default, |run| (run.file.clone(), run.words.clone()));
                // A thread may have a name of its own.
                let name = before.map_or_else(|| run.name.clone(), |before| before.name.clone());
                let parent = Some((parent, name.clone()));
                self.end(pid, time, false);
                self.add(Run { parent, name, file, words, ..run });
            }
            Kind::Exec { file, words } => {
                // Its number may have been that of one that ended.
                let before = self.latest(pid).filter(|run| run.ended.is_none());
                let before = before.map(|run| (run.parent.clone(), run.began, run.packets));
                let (parent, began, packets) = before.unwrap_or_else(|| (self.starter.take(), time, 0));
                let began = if packets == 0 { began } else { time };
                self.end(pid, time, true);
                self.add(Run { began, parent, file, words, ..run });
            }
            Kind::Present { parent, file, words } => {
                let parent = Some((parent, self.latest(parent).map_or("", |run| &run.name).to_owned()));
                self.add(Run { parent, file, words, ..run });
            }
            Kind::Exit => self.end(pid, time, false),
        }
    }

    /// The owner of a packet, to whom it is counted; none if it has none.
    pub fn owner(&mut self, header: &RecordHeader) -> Option<Owner<'_>> {
        let pid = Some(header.owner).filter(|pid| *pid != 0)?;
        let run = self.runs.get_mut(&pid).and_then(|runs| {
            let at = at(runs, header.time);
            runs.get_mut(at)
        });
        let name = run.map_or("", |run| {
            run.packets += 1;
            &run.name
        });
        Some(Owner { pid, name })
    }

    /// Packets are counted for another file.
    pub fn begin_file(&mut self) {
        for run in self.runs.values_mut().flatten() {
            run.earlier = run.packets;
        }
    }

    /// A line for each that was there between two times, since the epoch; in the order of their beginnings.
    pub fn lines(&self, from: Duration, to: Duration) -> Vec<String> {
        let is_of_use = |run: &&Run| {
            let ended = run.ended.unwrap_or(Duration::MAX);
            // What it was before it became another has a line only if it had packets.
            let is_gone = run.is_replaced && run.packets_here() == 0 && ended <= to;
            run.became <= to && ended >= from && !is_gone
        };
        let mut runs: Vec<_> = self.runs.values().flatten().filter(is_of_use).collect();
        runs.sort_by_key(|run| (run.began, run.since));
        let mut lines: Vec<_> = runs.into_iter().map(Run::to_string).collect();
        if self.forgotten > 0 {
            lines.push(format!("{} processes that ended earlier are left out", self.forgotten));
        }
        lines
    }

    /// The latest that is known of a process.
    fn latest(&self, pid: u32) -> Option<&Run> {
        self.runs.get(&pid)?.last()
    }

    fn add(&mut self, run: Run) {
        self.runs.entry(run.pid).or_default().push(run);
        self.count += 1;
        if self.count > self.limit {
            self.forget_some();
            // Where most live, looking for others is not for each that begins.
            let living = self.runs.values().flatten().filter(|run| run.ended.is_none()).count();
            self.limit = MOST.max(2 * living);
        }
    }

    /// Ends what a process is, if it has not ended.
    fn end(&mut self, pid: u32, time: Duration, is_replaced: bool) {
        let latest = self.runs.get_mut(&pid).and_then(|runs| runs.last_mut());
        if let Some(run) = latest.filter(|run| run.ended.is_none()) {
            run.ended = Some(time);
            run.is_replaced = is_replaced;
        }
    }

    /// Forgets the older half of those that have ended.
    fn forget_some(&mut self) {
        let mut ends: Vec<_> = self.runs.values().flatten().filter_map(|run| run.ended).collect();
        ends.sort_unstable();
        let Some(limit) = ends.get(ends.len() / 2).copied() else { return };
        for runs in self.runs.values_mut() {
            runs.retain(|run| run.ended.is_none_or(|ended| ended > limit));
        }
        self.runs.retain(|_, runs| !runs.is_empty());
        let left = self.runs.values().map(Vec::len).sum();
        self.forgotten += (self.count - left) as u64;
        self.count = left;
    }
}

/// Which of a process's programs it was at a time: the last that had begun by then. What is stamped before the first is the
/// first's: the kernel tells of a beginning a moment after it.
fn at(runs: &[Run], time: u64) -> usize {
    runs.iter().rposition(|run| run.since <= time).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{super::words::Words, *};

    fn news(time: u64, pid: u32, name: &str, kind: Kind) -> News {
        News { time, pid, user: 1000, name: name.into(), kind }
    }

    fn exec(file: &str, words: &[&str]) -> Kind {
        Kind::Exec { file: file.into(), words: Words::new(words.join("\0").as_bytes()) }
    }

    /// A shell that starts a client, which sends a packet and ends.
    fn story() -> Processes {
        let mut processes = Processes::default();
        for (number, news) in [
            news(10, 1, "sh", exec("/bin/sh", &["sh", "-c", "curl x"])),
            news(20, 2, "sh", Kind::Fork(1)),
            news(30, 2, "curl", exec("/usr/bin/curl", &["curl", "x y"])),
            news(50, 2, "curl", Kind::Exit),
        ]
        .into_iter()
        .enumerate()
        {
            processes.take(news, Duration::new(1, u32::try_from(number).expect("small")));
        }
        processes
    }

    /// The name of who owns a packet.
    fn owner(processes: &mut Processes, pid: u32, time: u64) -> Option<&str> {
        let header = RecordHeader { owner: pid, time, ..RecordHeader::default() };
        processes.owner(&header).map(|owner| owner.name)
    }

    #[test]
    fn a_name_is_that_of_the_time() {
        let mut processes = story();
        assert_eq!(owner(&mut processes, 1, 60), Some("sh"));
        assert_eq!(owner(&mut processes, 2, 15), Some("sh"), "a moment before the kernel tells of it");
        assert_eq!(owner(&mut processes, 2, 29), Some("sh"));
        assert_eq!(owner(&mut processes, 2, 30), Some("curl"));
        assert_eq!(owner(&mut processes, 2, 99), Some("curl"), "packets come later than an end");
        assert_eq!(owner(&mut processes, 3, 60), Some(""));
        processes.take(news(70, 2, "sh", Kind::Fork(1)), Duration::new(2, 0));
        assert_eq!(owner(&mut processes, 2, 69), Some("curl"));
        assert_eq!(owner(&mut processes, 2, 70), Some("sh"));
        assert_eq!(owner(&mut processes, 3, 70), Some(""));
        assert_eq!(owner(&mut processes, 0, 70), None);
    }

    #[test]
    fn a_line_tells_all() {
        let mut processes = story();
        assert_eq!(owner(&mut processes, 2, 40), Some("curl"));
        let expected = [
            "process 1 sh, user 1000, from 1.000000000, 0 packets, /bin/sh: sh -c 'curl x'",
            "process 2 curl, parent 1 sh, user 1000, from 1.000000001 to 1.000000003, 1 packets, \
             /usr/bin/curl: curl 'x y'",
        ];
        assert_eq!(processes.lines(Duration::ZERO, Duration::MAX), expected);
        assert_eq!(processes.lines(Duration::new(1, 4), Duration::MAX), expected[..1]);
        assert_eq!(processes.lines(Duration::ZERO, Duration::new(1, 0)), expected[..1]);
    }

    #[test]
    fn what_had_packets_before_it_became_another_has_its_own_line() {
        let mut processes = story();
        assert_eq!(owner(&mut processes, 2, 25), Some("sh"));
        let lines = processes.lines(Duration::ZERO, Duration::MAX);
        assert_eq!(lines.len(), 3);
        assert!(
            lines[1].starts_with("process 2 sh, parent 1 sh, user 1000, from 1.000000001 until 1.000000002")
        );
    }

    #[test]
    fn packets_are_those_of_the_file() {
        let mut processes = story();
        assert_eq!(owner(&mut processes, 2, 25), Some("sh"));
        processes.begin_file();
        let lines = |processes: &Processes| processes.lines(Duration::ZERO, Duration::MAX).join("\n");
        assert!(lines(&processes).contains(" 0 packets, /usr/bin/curl"), "{}", lines(&processes));
        assert!(!lines(&processes).contains("process 2 sh"), "{}", lines(&processes));
        assert_eq!(owner(&mut processes, 2, 99), Some("curl"));
        assert!(lines(&processes).contains(" 1 packets, /usr/bin/curl"), "{}", lines(&processes));
    }

    #[test]
    fn a_number_may_come_again() {
        let mut processes = story();
        processes.take(news(60, 2, "wget", exec("/usr/bin/wget", &["wget"])), Duration::new(1, 9));
        let lines = processes.lines(Duration::ZERO, Duration::MAX);
        assert_eq!(lines[2], "process 2 wget, user 1000, from 1.000000009, 0 packets, /usr/bin/wget: wget");
    }

    #[test]
    fn who_is_found_before_its_fork_is_told_is_one_process() {
        let mut processes = Processes::default();
        let present = Kind::Present { parent: 1, file: "/bin/sh".into(), words: Words::default() };
        processes.take(news(50 * TICKS, 2, "sh", present), Duration::new(1, 0));
        processes.take(news(51 * TICKS - 1, 2, "sh", Kind::Fork(1)), Duration::new(1, 1));
        assert_eq!(processes.lines(Duration::ZERO, Duration::MAX).len(), 1);
        // Its end was lost, and its number has come again.
        processes.take(news(51 * TICKS, 2, "sh", Kind::Fork(1)), Duration::new(1, 2));
        assert_eq!(processes.lines(Duration::ZERO, Duration::MAX).len(), 2);
    }

    #[test]
    fn those_that_live_are_not_gone_through_for_each_that_begins() {
        let mut processes = Processes::default();
        for pid in (1..).take(MOST + 1) {
            processes
                .take(news(u64::from(pid), pid, "sleep", exec("/bin/sleep", &["sleep"])), Duration::ZERO);
        }
        assert!(processes.limit > 2 * MOST);
    }

    #[test]
    fn who_lives_makes_no_room_for_ever_more_that_have_ended() {
        let mut processes = Processes::default();
        let mut take =
            |time, pid, kind| processes.take(news(time, pid, "sh", kind), Duration::from_secs(time));
        for pid in 1..=15_000 {
            take(1, pid, Kind::Fork(0));
        }
        for number in 0..300_000 {
            let time = 2 + u64::from(number);
            take(time, 20_000 + number, Kind::Fork(1));
            take(time, 20_000 + number, Kind::Exit);
        }
        assert!(processes.count <= 30_001, "{}", processes.count);
    }

    #[test]
    fn there_is_an_end_to_what_is_kept_in_mind() {
        let mut processes = story();
        for number in 0..50_000 {
            let (pid, time) = (100 + number % 30_000, 100 + u64::from(number));
            processes.take(news(time, pid, "sh", Kind::Fork(1)), Duration::from_secs(time));
            processes.take(news(time, pid, "sh", Kind::Exit), Duration::from_secs(time));
            assert_eq!(owner(&mut processes, pid, time), Some("sh"));
        }
        assert!(processes.count <= MOST);
        assert_eq!(processes.count + usize::try_from(processes.forgotten).expect("few"), 50_003);
        assert_eq!(owner(&mut processes, 1, 60), Some("sh"), "who lives is not forgotten");
        assert!(
            processes
                .lines(Duration::ZERO, Duration::MAX)
                .last()
                .is_some_and(|line| line.ends_with("are left out"))
        );
    }
}
