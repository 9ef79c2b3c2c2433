//! Reads numbers of variable length, as Thrift's compact protocol and Parquet's delta encoding write them.
//!
//! A byte holds seven bits of the number, the lowest ones first; its highest bit says that another byte follows.

use std::io::{Error, ErrorKind, Result};

/// Reads a byte.
pub(super) fn byte(rest: &mut &[u8]) -> Result<u8> {
    let (first, others) = rest.split_first().ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))?;
    *rest = others;
    Ok(*first)
}

/// Goes past `length` bytes.
pub(super) fn pass(rest: &mut &[u8], length: u64) -> Result<()> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    *rest = rest.get(length..).ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))?;
    Ok(())
}

/// Reads a number without sign.
pub(super) fn varint(rest: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let next = byte(rest)?;
        value |= u64::from(next & 0x7f) << shift;
        if next < 0x80 {
            return Ok(value);
        }
    }
    Err(ErrorKind::InvalidData.into())
}

/// Decodes a number whose sign is in its lowest bit.
pub(super) fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
