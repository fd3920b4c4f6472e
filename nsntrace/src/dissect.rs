//! Pure readers of what was captured. They survive any bytes, and allocate nothing.

#[cfg(test)]
pub(crate) mod frames;
pub mod packet;
#[cfg(test)]
mod properties;
pub mod tls;
