//! What the program lives in: a network namespace that nobody else is in.

pub mod covers;
pub mod inside;
pub mod keeper;
pub mod mounts;
pub mod netns;
pub mod quiet;
pub mod sysctls;
