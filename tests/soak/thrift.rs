//! Finds the numbers in Parquet's metadata, by as much of Thrift's compact protocol as that needs.

use std::ops::Range;

/// A varint.
#[derive(Clone, Debug)]
pub struct Number {
    pub at: Range<usize>,
    /// Field ids from the outermost structure to this one; a list's items have the list's.
    pub path: Vec<i16>,
    /// The number as it is written: integers are zigzag-coded, lengths of texts and lists are not.
    pub raw: u64,
    pub zigzag: bool,
}

impl Number {
    pub fn value(&self) -> i64 {
        if self.zigzag { (self.raw >> 1) as i64 ^ -((self.raw & 1) as i64) } else { self.raw as i64 }
    }

    /// The bytes of another value: as many as this one has if it fits, and more otherwise.
    pub fn written(&self, value: i64) -> Vec<u8> {
        let mut raw = if self.zigzag { ((value << 1) ^ (value >> 63)) as u64 } else { value as u64 };
        let mut bytes = Vec::new();
        while raw > 0x7f || bytes.len() + 1 < self.at.len() {
            bytes.push(raw as u8 | 0x80);
            raw >>= 7;
        }
        bytes.push(raw as u8);
        bytes
    }
}

/// The numbers of the structure that begins at `at`, and where it ends.
pub fn numbers(bytes: &[u8], at: usize) -> Option<(Vec<Number>, usize)> {
    let mut walk = Walk { bytes, at, path: Vec::new(), found: Vec::new() };
    walk.structure()?;
    Some((walk.found, walk.at))
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    path: Vec<i16>,
    found: Vec<Number>,
}

impl Walk<'_> {
    fn byte(&mut self) -> Option<u8> {
        self.at += 1;
        self.bytes.get(self.at - 1).copied()
    }

    fn varint(&mut self, zigzag: bool) -> Option<u64> {
        let (start, mut raw, mut shift) = (self.at, 0, 0);
        loop {
            let byte = self.byte()?;
            raw |= u64::from(byte & 0x7f).checked_shl(shift)?;
            shift += 7;
            if byte < 0x80 {
                break;
            }
        }
        self.found.push(Number { at: start..self.at, path: self.path.clone(), raw, zigzag });
        Some(raw)
    }

    fn structure(&mut self) -> Option<()> {
        let mut id = 0;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Some(());
            }
            id = match head >> 4 {
                0 => {
                    let raw = self.varint(true)?;
                    self.found.pop()?;
                    (raw >> 1) as i16
                }
                delta => id + i16::from(delta),
            };
            self.path.push(id);
            self.value(head & 15)?;
            self.path.pop();
        }
    }

    fn value(&mut self, kind: u8) -> Option<()> {
        match kind {
            // Booleans are in the field's header.
            1 | 2 => {}
            3 => self.at += 1,
            4..=6 => drop(self.varint(true)?),
            7 => self.at += 8,
            8 => self.at = self.varint(false).and_then(|length| self.at.checked_add(length as usize))?,
            9 | 10 => {
                let head = self.byte()?;
                let length = if head >> 4 == 15 { self.varint(false)? } else { u64::from(head >> 4) };
                // In lists, booleans take a byte each.
                let kind = if head & 15 <= 2 { 3 } else { head & 15 };
                (0..length).try_for_each(|_| self.value(kind))?;
            }
            12 => self.structure()?,
            _ => return None,
        }
        Some(())
    }
}
