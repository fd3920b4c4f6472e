//! Against a kernel side made of plain files.

use std::{
    os::unix::fs::FileExt,
    sync::atomic::{AtomicU64, Ordering},
    thread::{self, ScopedJoinHandle},
};

use nsntrace_ebpf::{AHEAD, BEGUN, CHUNK, LANE_PACKET, LANE_RECORD, ahead, behind};

use self::bench::{Bench, LANE, is_full, record};
use super::*;

mod bench;

#[test]
fn what_is_taken_ahead_is_free_and_in_the_chunk() {
    let mut taken = 0;
    for at in (0..=CHUNK - LANE_RECORD).step_by(8) {
        for length in 1..=LANE_PACKET as usize {
            let end = at + RecordHeader::SIZE + length;
            let Some(part) = ahead(at, end) else { continue };
            assert!(part >= end && part <= end + AHEAD && part + AHEAD <= CHUNK, "{at} {length}: {part}");
            taken += 1;
        }
    }
    assert!(taken > 0);
}

#[test]
fn what_is_too_young_stays_where_it_is() {
    let mut bench = Bench::new(2);
    for time in [10, 11, 12] {
        bench.append(0, &record(time, 60));
    }
    bench.push(&record(9, 1500));
    bench.append(1, &record(8, 60));
    assert_eq!(bench.drain_part(11), Left::Young);
    assert_eq!(bench.out, [8, 9, 10, 11]);
    assert!(!bench.lanes.are_empty());
    assert_eq!(bench.drain_part(12), Left::Nothing);
    assert_eq!(bench.out, [8, 9, 10, 11, 12]);
    assert!(bench.lanes.are_empty());
    bench.push(&record(14, 1500));
    assert_eq!(bench.drain_part(13), Left::Young);
    assert_eq!(bench.drain_part(14), Left::Nothing);
    assert_eq!(bench.out, [8, 9, 10, 11, 12, 14]);
}

#[test]
fn what_is_being_written_stays() {
    let mut bench = Bench::new(1);
    bench.append(0, &record(10, 60));
    assert_eq!(bench.drain_part(20), Left::Nothing);
    let head = bench.processors.head(0);
    bench.processors.set_head(0, head | BEGUN);
    assert_eq!(bench.drain_part(30), Left::Young);
    bench.processors.set_head(0, head);
    assert_eq!(bench.drain_part(40), Left::Nothing);
}

#[test]
fn what_is_not_taken_is_the_first_that_stays_in_a_lane() {
    let mut bench = Bench::new(1);
    for time in [1, 3, 5] {
        bench.append(0, &record(time, 60));
    }
    for time in [2, 4] {
        bench.push(&record(time, 1500));
    }
    let (third, mut out) = (behind(0, record(1, 60).len() as u64), Vec::new());
    bench.batch.fill(&bench.rings, &bench.lanes, u64::MAX);
    let ended = bench.batch.hand_out(&bench.rings, &bench.lanes, |header, _| {
        if header.time == 3 {
            return ControlFlow::Break("enough");
        }
        out.push(header.time);
        ControlFlow::Continue(())
    });
    assert_eq!(ended, ControlFlow::Break("enough"));
    assert_eq!(out, [1, 2]);
    assert_eq!(bench.batch.release(&mut bench.rings, &mut bench.lanes), Left::Young);
    assert_eq!(bench.processors.tail(0), third);
}

#[test]
fn a_lane_waits_for_what_is_older_in_the_ring() {
    let mut bench = Bench::new(1);
    bench.push(&record(30, 1500));
    bench.push(&record(20, 1500));
    bench.append(0, &record(25, 60));
    bench.drain(26);
    assert!(bench.out.is_empty());
    bench.drain(30);
    assert_eq!(bench.out, [20, 25, 30]);
}

#[test]
fn what_finds_its_lane_full_goes_by_the_ring() {
    let mut bench = Bench::new(1);
    let sent: Vec<u64> = (1..2000).collect();
    sent.iter().for_each(|time| bench.append(0, &record(*time, 100)));
    assert!(!bench.rings.are_empty());
    bench.drain(u64::MAX);
    assert_eq!(bench.out, sent);
    assert!(bench.rings.are_empty() && bench.lanes.are_empty());
}

/// A processor took a place in the near ring, was held up before it stamped its packet, and the far one had to take what came
/// then: a part of that alone is younger than what is behind its packet.
#[test]
fn who_was_held_up_in_one_ring_does_not_stop_the_other() {
    for ring in 0..rings::COUNT {
        let mut bench = Bench::new(1);
        bench.push_into(ring, &record(90_000_000, 200));
        bench.push_into(ring, &record(1_000_000, 200));
        let mut times: Vec<u64> = (0..2500).map(|count| 2_000_000 + count * 10_000).collect();
        times.iter().for_each(|time| {
            bench.push_into(1 - ring, &record(*time, if ring == 0 { 1500 } else { 200 }));
        });
        bench.drain(80_000_000);
        // What came first has its place behind the one that is too young.
        assert!(bench.out.is_empty());
        bench.drain(u64::MAX);
        times.splice(..0, [1_000_000]);
        times.push(90_000_000);
        assert_eq!(bench.out, times);
    }
}

#[test]
fn a_burst_goes_out_in_parts_and_in_order() {
    let mut bench = Bench::new(1);
    let mut times: Vec<u64> = (1..3000).map(|count| count * 10_000).collect();
    // Two swapped, each time 70 apart, or 700 microseconds.
    (0..2900).step_by(100).for_each(|first| times.swap(first, first + 70));
    times.iter().for_each(|time| {
        bench.push_into(1, &record(*time, 1000));
    });
    let mut parts = 0;
    let mut left = Left::More;
    while left != Left::Nothing {
        let position = |bench: &Bench| bench.rings.each()[1].position();
        let before = position(&bench);
        left = bench.drain_part(u64::MAX);
        assert!(position(&bench) - before <= bench.rings.each()[1].part());
        parts += 1;
    }
    assert!(parts > 3, "{parts}");
    times.sort_unstable();
    assert_eq!(bench.out, times);
}

#[test]
fn what_came_at_the_same_time_goes_out_together() {
    let mut bench = Bench::new(1);
    let times: Vec<u64> = (STAMPED..STAMPED + 3000).rev().collect();
    times.iter().for_each(|time| {
        bench.push_into(1, &record(*time, 1000));
    });
    assert_eq!(bench.drain_part(u64::MAX), Left::Nothing);
    assert!(bench.out.is_sorted());
    assert_eq!(bench.out.len(), times.len());
}

#[test]
fn who_is_hidden_behind_another_holds_younger_ones_back() {
    for ring in 0..rings::COUNT {
        let mut bench = Bench::new(1);
        let [first, second] = [10, 15].map(|time| bench.push_into(ring, &record(time, 1500)));
        bench.toggle(ring, first);
        bench.toggle(ring, second);
        bench.append(0, &record(18, 60));
        bench.push_into(1 - ring, &record(17, 1500));
        bench.drain(20);
        assert!(bench.out.is_empty());
        bench.toggle(ring, first);
        bench.drain(30);
        assert!(bench.out.is_empty());
        bench.toggle(ring, second);
        bench.drain(40);
        assert_eq!(bench.out, [10, 15, 17, 18]);
    }
}

#[test]
fn what_waits_in_one_ring_holds_back_what_is_younger_in_the_other() {
    for ring in 0..rings::COUNT {
        let mut bench = Bench::new(1);
        for (ring, time) in [(ring, 30), (ring, 20), (1 - ring, 19), (1 - ring, 21), (1 - ring, 18)] {
            bench.push_into(ring, &record(time, 1500));
        }
        bench.append(0, &record(22, 60));
        bench.drain(29);
        // 18 has its place behind 21, which must not go before 20.
        assert!(bench.out.is_empty());
        bench.drain(30);
        assert_eq!(bench.out, [18, 19, 20, 21, 22, 30]);
    }
}

/// Two processors write at the same time as the reader takes, and may be held up in the middle of it.
#[test]
fn nobody_is_overtaken_by_who_was_stamped_later() {
    const EACH: usize = 20_000;
    let mut bench = Bench::new(2);
    let (lanes, processors) = (bench.lanes_file.try_clone().expect("a descriptor"), bench.processors.clone());
    let clock = AtomicU64::new(1);
    let write = |cpu: usize| {
        for _ in 0..EACH {
            while is_full(&processors, cpu) {
                thread::yield_now();
            }
            let head = processors.head(cpu);
            processors.set_head(cpu, head | BEGUN);
            let record = record(clock.fetch_add(1, Ordering::SeqCst), 60);
            thread::yield_now();
            lanes.write_all_at(&record, cpu as u64 * LANE + head % LANE).expect("written");
            processors.set_head(cpu, behind(head, record.len() as u64));
        }
    };
    thread::scope(|scope| {
        let write = &write;
        let writers = [0, 1].map(|cpu| scope.spawn(move || write(cpu)));
        while !writers.iter().all(ScopedJoinHandle::is_finished) {
            bench.drain(clock.load(Ordering::SeqCst) - 1);
        }
    });
    bench.drain(u64::MAX);
    assert_eq!(bench.out.len(), 2 * EACH);
    assert!(bench.out.is_sorted());
}

/// Three processors stamp packets and let them be seen some time later, by one way or the other, while the reader
/// looks at any moment: each packet comes out once, the lanes going round and round.
#[test]
fn nothing_is_lost_or_doubled() {
    for seed in 0..30 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::new(3);
        let mut sent = Vec::new();
        let mut stamped: [Option<u64>; 3] = [None; 3];
        let mut now = 1000;
        for _ in 0..20_000 {
            now += random.u64(1..4);
            let cpu = random.usize(..3);
            match stamped[cpu].take() {
                None => stamped[cpu] = Some(now),
                Some(time) => {
                    if random.u32(..10) < 9 {
                        bench.append(cpu, &record(time, random.u32(1..257)));
                    } else {
                        bench.push_into(random.usize(..2), &record(time, random.u32(257..400)));
                    }
                    sent.push(time);
                }
            }
            if random.u32(..100) == 0 {
                bench.drain(now.saturating_sub(random.u64(1..30)));
            }
        }
        bench.drain(u64::MAX);
        sent.sort_unstable();
        bench.out.sort_unstable();
        assert_eq!(bench.out, sent, "seed {seed}");
    }
}
