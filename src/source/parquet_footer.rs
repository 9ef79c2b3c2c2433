//! Whether a Parquet file has encrypted columns: its footer says so, in a field that the decoder does not look at.

use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom};

/// Whether the footer names an encryption algorithm. The footer itself is not encrypted, or the file would not begin as
/// Parquet does.
pub(super) fn is_encrypted(input: &mut (impl Read + Seek)) -> Result<bool> {
    let mut end = [0; 8];
    input.seek(SeekFrom::End(-8))?;
    input.read_exact(&mut end)?;
    let [a, b, c, d, ..] = end;
    let length = u32::from_le_bytes([a, b, c, d]);
    input.seek(SeekFrom::End(-8 - i64::from(length)))?;
    let mut footer = Vec::new();
    input.take(length.into()).read_to_end(&mut footer)?;
    has_field(&mut &footer[..], ENCRYPTION_ALGORITHM)
}

/// Whether a struct in Thrift's compact protocol has the field of this number.
fn has_field(rest: &mut &[u8], wanted: i64) -> Result<bool> {
    let mut field = 0;
    loop {
        let header = byte(rest)?;
        if header == 0 {
            return Ok(false);
        }
        field = match header >> 4 {
            0 => zigzag(varint(rest)?),
            more => field + i64::from(more),
        };
        if field == wanted {
            return Ok(true);
        }
        // The value of a truth value is its type.
        if !matches!(header & 0xf, 1 | 2) {
            skip(rest, header & 0xf, 0)?;
        }
    }
}

fn skip(rest: &mut &[u8], kind: u8, depth: usize) -> Result<()> {
    if depth > DEEPEST {
        return Err(ErrorKind::InvalidData.into());
    }
    match kind {
        1..=3 => drop(byte(rest)?),
        4..=6 => drop(varint(rest)?),
        7 => pass(rest, 8)?,
        8 => {
            let length = varint(rest)?;
            pass(rest, length)?;
        }
        9 | 10 => {
            let header = byte(rest)?;
            let length = if header >> 4 == 15 { varint(rest)? } else { u64::from(header >> 4) };
            for _ in 0..length {
                skip(rest, header & 0xf, depth + 1)?;
            }
        }
        12 => loop {
            let header = byte(rest)?;
            if header == 0 {
                break;
            }
            if header >> 4 == 0 {
                varint(rest)?;
            }
            if !matches!(header & 0xf, 1 | 2) {
                skip(rest, header & 0xf, depth + 1)?;
            }
        },
        // Footers have no maps.
        _ => return Err(ErrorKind::InvalidData.into()),
    }
    Ok(())
}

fn byte(rest: &mut &[u8]) -> Result<u8> {
    let (first, others) = rest.split_first().ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))?;
    *rest = others;
    Ok(*first)
}

fn pass(rest: &mut &[u8], length: u64) -> Result<()> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    *rest = rest.get(length..).ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))?;
    Ok(())
}

fn varint(rest: &mut &[u8]) -> Result<u64> {
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

fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// The field's number in `FileMetaData`.
const ENCRYPTION_ALGORITHM: i64 = 8;

/// Structs within structs; footers have seven or so.
const DEEPEST: usize = 64;
