//! The kernel side's books, added up over the processors.

use aya::{
    Pod,
    maps::{Map, MapData, PerCpuArray},
};
use nsntrace_ebpf::Counters;

use crate::error::{Context, Result};

/// What the kernel side has counted, in packets: `seen` = `captured` + `dropped`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets that passed.
    pub seen: u64,
    /// Packets put into the ring buffer.
    pub captured: u64,
    /// Packets lost because the ring buffer was full.
    pub dropped: u64,
    /// Captured packets of which the snapshot length kept only a part.
    pub cut: u64,
}

/// The map of the counters.
pub(super) struct CounterMap(PerCpuArray<MapData, OneCpu>);

#[repr(transparent)]
#[derive(Clone, Copy)]
struct OneCpu(Counters);

// SAFETY: four u64 in C layout: any bytes are a value, and there is no padding.
unsafe impl Pod for OneCpu {}

impl CounterMap {
    pub(super) fn new(map: Map) -> Result<Self> {
        PerCpuArray::try_from(map).map(Self).context("use", "the counters")
    }

    pub(super) fn read(&self) -> Result<Stats> {
        let counters = self.0.get(&0, 0).context("read", "the counters")?;
        Ok(counters.iter().fold(Stats::default(), |sum, OneCpu(one)| Stats {
            seen: sum.seen + one.seen,
            captured: sum.captured + one.captured,
            dropped: sum.dropped + one.dropped,
            cut: sum.cut + one.cut,
        }))
    }
}
