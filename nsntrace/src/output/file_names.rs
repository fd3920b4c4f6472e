//! The names of a trace's files, and when which one is its turn: as with tcpdump's -C, -G and -W.
//!
//! All times are since the epoch.

use std::{
    ffi::{CString, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    config::{Outfile, Rotation},
    error::{Error, Result},
};

/// Room for a name, as the kernel bounds it.
const LONGEST: usize = libc::PATH_MAX as usize;

/// The name of the present file, and the way to the next one's.
#[derive(Debug)]
pub(super) struct FileNames {
    outfile: Outfile,
    rotation: Rotation,
    /// When the present period began.
    began: Duration,
    /// When it is over.
    due: Duration,
    /// Periods that are over.
    over: u32,
    /// The present file's number in its period.
    number: u32,
}

impl FileNames {
    /// Names for a trace that is made ready `now`.
    pub(super) fn new(outfile: Outfile, rotation: Rotation, now: Duration) -> Self {
        Self { outfile, rotation, began: now, due: Duration::MAX, over: 0, number: 0 }
    }

    /// Whether there may be more than one file.
    pub(super) fn are_several(&self) -> bool {
        self.rotation != Rotation::default()
    }

    /// Lets the first period begin.
    pub(super) fn begin(&mut self, time: Duration) {
        self.due = self.rotation.period.map_or(Duration::MAX, |period| time.saturating_add(period));
    }

    /// When the present period is over; far away where there is but one.
    pub(super) fn due(&self) -> Duration {
        self.due
    }

    /// Whether what passes at `time` belongs into the next file, when the present one is so long in bytes.
    pub(super) fn is_due(&self, time: Duration, length: u64) -> bool {
        time >= self.due || self.rotation.size.is_some_and(|size| length > size)
    }

    /// Goes on to the next name, for what passes from `time` on; false if the present one was the last.
    pub(super) fn advance(&mut self, time: Duration) -> bool {
        match self.rotation.period {
            Some(period) if time >= self.due => self.next_period(time, period),
            _ => {
                self.number = self.rotation.files.map_or(self.number + 1, |files| (self.number + 1) % files);
                true
            }
        }
    }

    /// -W bounds the periods, unless it numbers the files of each.
    fn next_period(&mut self, time: Duration, period: Duration) -> bool {
        self.over += 1;
        if self.rotation.size.is_none() && self.rotation.files.is_some_and(|files| self.over >= files.get()) {
            return false;
        }
        // No file for a period that the machine slept through.
        let late = (time - self.due).as_secs() / period.as_secs();
        self.began = self.due + Duration::from_secs(late * period.as_secs());
        self.due = self.began.saturating_add(period);
        self.number = 0;
        true
    }

    /// The present name.
    ///
    /// # Errors
    /// Where it is too long, or empty.
    pub(super) fn present(&self) -> Result<Outfile> {
        let Outfile::Path(path) = &self.outfile else { return Ok(Outfile::Stdout) };
        let mut name = match self.rotation.period {
            Some(_) => at_time(path, self.began)?.into_os_string(),
            None => path.clone().into_os_string(),
        };
        if self.rotation.size.is_some() {
            let width = self.width();
            if self.number > 0 || width > 0 {
                name.push(format!("{:0width$}", self.number));
            }
        }
        Ok(Outfile::Path(name.into()))
    }

    /// Digits of a number where -W says how many files there are; 0 where they just grow.
    fn width(&self) -> usize {
        let highest = self.rotation.files.map_or(0, |files| files.get() - 1);
        highest.checked_ilog10().map_or(0, |exponent| exponent as usize + 1)
    }
}

/// The name for a time by the host's clock, where strftime(3) writes what the name has of it.
fn at_time(name: &Path, time: Duration) -> Result<PathBuf> {
    let too_long = || Error::told(format!("the file name {} is too long, or none", name.display()));
    let format = CString::new(name.as_os_str().as_bytes()).map_err(|_| too_long())?;
    let seconds = time.as_secs().cast_signed();
    let mut buffer = vec![0; LONGEST];
    // SAFETY: plain numbers, for which zeros are good values; localtime_r writes them where it is told to, and strftime
    // ends what it writes within the buffer.
    let length = unsafe {
        let mut local: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&seconds, &mut local).is_null() {
            return Err(Error::told(format!("{seconds} seconds since 1970 are no time")));
        }
        libc::strftime(buffer.as_mut_ptr().cast(), buffer.len(), format.as_ptr(), &local)
    };
    buffer.truncate(length);
    if buffer.is_empty() { Err(too_long()) } else { Ok(OsString::from_vec(buffer).into()) }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const START: Duration = Duration::from_millis(1_700_000_000_250);

    fn rotation(size: Option<u64>, period: Option<u64>, files: Option<u32>) -> Rotation {
        let files = files.map(|files| NonZeroU32::new(files).expect("not 0"));
        Rotation { size, period: period.map(Duration::from_secs), files }
    }

    fn names(template: &str, rotation: Rotation) -> FileNames {
        let mut names = FileNames::new(Outfile::Path(template.into()), rotation, START);
        names.begin(START);
        names
    }

    fn present(names: &FileNames) -> String {
        let Ok(Outfile::Path(path)) = names.present() else { panic!("no name") };
        path.display().to_string()
    }

    /// The present name and those of the files after it that are full.
    fn by_size(names: &mut FileNames, files: usize) -> Vec<String> {
        let mut full = || {
            let name = present(names);
            assert!(names.advance(START));
            name
        };
        std::iter::repeat_with(&mut full).take(files).collect()
    }

    #[test]
    fn one_file_has_its_name_whatever_that_is() {
        let names = names("%s%n", Rotation::default());
        assert_eq!(present(&names), "%s%n");
        assert!(!names.is_due(Duration::from_secs(1 << 40), u64::MAX));
    }

    #[test]
    fn files_of_a_size_are_numbered() {
        let mut plain = names("x", rotation(Some(100), None, None));
        assert!(!plain.is_due(START, 100));
        assert!(plain.is_due(START, 101));
        assert_eq!(by_size(&mut plain, 12)[..3], ["x", "x1", "x2"]);
        assert_eq!(present(&plain), "x12");
    }

    #[test]
    fn a_limited_number_of_files_is_a_ring() {
        let ring = |files| by_size(&mut names("x", rotation(Some(100), None, Some(files))), 12);
        assert_eq!(ring(1)[..2], ["x", "x"]);
        assert_eq!(ring(2)[..3], ["x0", "x1", "x0"]);
        assert_eq!(ring(10)[8..], ["x8", "x9", "x0", "x1"]);
        assert_eq!(ring(11)[9..], ["x09", "x10", "x00"]);
        assert_eq!(ring(101)[0], "x000");
    }

    #[test]
    fn periods_follow_each_other_without_a_gap() {
        let mut names = names("x%s", rotation(None, Some(10), None));
        assert_eq!(present(&names), "x1700000000");
        let almost = START + Duration::from_nanos(9_999_999_999);
        assert!(!names.is_due(almost, u64::MAX));
        // However late it is noticed.
        for seconds in [10, 27, 30] {
            let time = START + Duration::from_secs(seconds);
            assert!(names.is_due(time, 0) && names.advance(time));
            assert_eq!(present(&names), format!("x{}", 1_700_000_000 + seconds / 10 * 10));
        }
        assert_eq!(names.due(), START + Duration::from_secs(40));
    }

    #[test]
    fn a_limited_number_of_periods_ends() {
        let mut names = names("x%s", rotation(None, Some(10), Some(3)));
        let mut next = |seconds| names.advance(START + Duration::from_secs(seconds));
        assert_eq!([next(10), next(20), next(30)], [true, true, false]);
        assert_eq!(present(&names), "x1700000020");
    }

    #[test]
    fn numbers_begin_anew_with_each_period() {
        let mut names = names("x%s-", rotation(Some(100), Some(10), Some(2)));
        assert_eq!(by_size(&mut names, 3), ["x1700000000-0", "x1700000000-1", "x1700000000-0"]);
        for period in 1..5 {
            assert!(names.advance(START + Duration::from_secs(10 * period)), "limited");
        }
        assert_eq!(present(&names), "x1700000040-0");
    }

    #[test]
    fn names_that_grow_without_end_are_refused() {
        let names = names("%5000Y", rotation(None, Some(1), None));
        assert!(names.present().expect_err("too long").to_string().contains("too long"));
    }
}
