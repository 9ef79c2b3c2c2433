//! Reads what the decoder ignores in a Parquet file's footer, or believes without a check.

use std::io::{ErrorKind, Read, Result, Seek, SeekFrom};

use super::varint::{byte, pass, varint, zigzag};

/// Whether the footer names an encryption algorithm.
///
/// The footer itself is not encrypted: such a file does not begin like Parquet.
pub(in crate::source) fn is_encrypted(input: &mut (impl Read + Seek)) -> Result<bool> {
    go_to_field(&mut &footer(input)?[..], ENCRYPTION_ALGORITHM).map(|kind| kind.is_some())
}

/// Returns the reason if the columns that the footer lists are impossible.
///
/// The decoder allocates memory for as many columns as a group is said to have, and recurses as deep as groups are
/// nested.
///
/// # Errors
/// An IO error if the footer cannot be read; the decoder then tells why.
pub(super) fn impossible_columns(input: &mut (impl Read + Seek)) -> Result<Option<String>> {
    let footer = footer(input)?;
    let mut rest = &footer[..];
    if go_to_field(&mut rest, SCHEMA)? != Some(LIST) {
        return Ok(None);
    }
    let (elements, kind) = list(&mut rest)?;
    // How many columns each of the enclosing groups still lacks.
    let mut open = Vec::new();
    for _ in 0..elements {
        let mut element = rest;
        skip(&mut rest, kind, 0)?;
        let columns = match go_to_field(&mut element, NUM_CHILDREN)? {
            Some(I32) => zigzag(varint(&mut element)?),
            _ => 0,
        };
        if !(0..elements as i64).contains(&columns) {
            return Ok(Some(format!("its footer says that a group has {columns} columns, of {elements} in all")));
        }
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        open.push(columns);
        while open.last() == Some(&0) {
            open.pop();
        }
        if open.len() > MAX_DEPTH {
            return Ok(Some(format!("its footer lists more than {MAX_DEPTH} groups within groups")));
        }
    }
    Ok(None)
}

/// Reads the bytes of the footer.
fn footer(input: &mut (impl Read + Seek)) -> Result<Vec<u8>> {
    let mut end = [0; 8];
    input.seek(SeekFrom::End(-8))?;
    input.read_exact(&mut end)?;
    let [a, b, c, d, ..] = end;
    let length = u32::from_le_bytes([a, b, c, d]);
    input.seek(SeekFrom::End(-8 - i64::from(length)))?;
    let mut footer = Vec::new();
    input.take(length.into()).read_to_end(&mut footer)?;
    Ok(footer)
}

/// Goes to the value of a field of a struct in Thrift's compact protocol. Returns its type, or `None` without the
/// field.
fn go_to_field(rest: &mut &[u8], wanted: i64) -> Result<Option<u8>> {
    let mut field = 0;
    loop {
        let header = byte(rest)?;
        if header == 0 {
            return Ok(None);
        }
        field = match header >> 4 {
            0 => zigzag(varint(rest)?),
            more => field + i64::from(more),
        };
        let kind = header & 0xf;
        if field == wanted {
            return Ok(Some(kind));
        }
        // A boolean has no bytes of its own: its value is in its type.
        if !matches!(kind, 1 | 2) {
            skip(rest, kind, 0)?;
        }
    }
}

/// Reads how many items a list has, and their type.
fn list(rest: &mut &[u8]) -> Result<(u64, u8)> {
    let header = byte(rest)?;
    let length = if header >> 4 == 15 { varint(rest)? } else { u64::from(header >> 4) };
    Ok((length, header & 0xf))
}

/// Goes past a value of a type.
fn skip(rest: &mut &[u8], kind: u8, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
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
        LIST | SET => {
            let (length, kind) = list(rest)?;
            for _ in 0..length {
                skip(rest, kind, depth + 1)?;
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

/// Types of values in Thrift's compact protocol.
const I32: u8 = 5;
const LIST: u8 = 9;
const SET: u8 = 10;

/// Numbers of fields in `FileMetaData`.
const SCHEMA: i64 = 2;
const ENCRYPTION_ALGORITHM: i64 = 8;

/// The number of a field in `SchemaElement`.
const NUM_CHILDREN: i64 = 5;

/// The deepest nesting of structs, of which a footer needs about seven levels, and of groups of columns.
const MAX_DEPTH: usize = 64;
