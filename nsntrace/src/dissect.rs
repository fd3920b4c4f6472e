//! Pure readers of what was captured. They survive any bytes, and those below names allocate nothing.

pub mod dns;
#[cfg(test)]
pub(crate) mod frames;
pub mod http;
pub mod packet;
#[cfg(test)]
mod properties;
pub mod tls;
pub mod transport;

/// The number of two bytes at the front.
fn number(rest: &mut &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*rest.split_off(..2)?.first_chunk()?))
}
