//! Damage to bytes regardless of their meaning.

use std::ops::Range;

use rand::{RngExt, rngs::ChaCha8Rng};

/// Bytes with damage.
#[derive(Clone, Debug)]
pub struct Mutant {
    pub bytes: Vec<u8>,
    /// Where bytes were changed in place.
    pub touched: Vec<Range<usize>>,
    /// Bytes were moved, added or removed, so that whole blocks may be others without a trace.
    pub moved: bool,
}

impl Mutant {
    pub fn new(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), touched: Vec::new(), moved: false }
    }

    /// Replaces bytes by others; what follows moves if there are more or fewer of them.
    pub fn put(&mut self, at: Range<usize>, new: &[u8]) {
        self.moved |= at.len() != new.len();
        self.touched.push(at.start..at.start + new.len());
        self.bytes.splice(at, new.iter().copied());
    }

    /// Changes something in its place, within `region`.
    pub fn change(&mut self, region: Range<usize>, random: &mut ChaCha8Rng) {
        if region.is_empty() {
            return;
        }
        let at = random.random_range(region.clone());
        match random.random_range(0..4) {
            0 => self.put(at..at + 1, &[self.bytes[at] ^ 1 << random.random_range(0..8)]),
            1 => {
                let byte = [0, 1, 0x7f, 0x80, 0xff, random.random()][random.random_range(0..6)];
                self.put(at..at + 1, &[byte]);
            }
            2 => {
                let length = [2, 4, 8][random.random_range(0..3)];
                let at = at / length * length;
                if at >= region.start && at + length <= region.end {
                    let mut word = [0; 8];
                    word[..length].copy_from_slice(&self.bytes[at..at + length]);
                    let value = number(i64::from_le_bytes(word), random).to_le_bytes();
                    self.put(at..at + length, &value[..length]);
                }
            }
            _ => {
                let end = (at + random.random_range(1..64)).min(region.end);
                let byte = [0, 0xff, random.random()][random.random_range(0..3)];
                self.put(at..end, &vec![byte; end - at]);
            }
        }
    }

    /// Moves, repeats, drops or takes from another file.
    pub fn rearrange(&mut self, other: &[u8], random: &mut ChaCha8Rng) {
        self.moved = true;
        let length = self.bytes.len();
        if length < 2 {
            return;
        }
        let mut some = || {
            let start = random.random_range(0..length);
            start..(start + random.random_range(1..=length / 2)).min(length)
        };
        let (a, b) = (some(), some());
        match random.random_range(0..5) {
            0 => self.bytes.truncate(a.start),
            1 => drop(self.bytes.drain(a)),
            2 => {
                let twice = self.bytes[a].to_vec();
                self.bytes.splice(b.start..b.start, twice);
            }
            3 => {
                // Two ranges of one length are swapped.
                let size = a.len().min(b.len());
                let (first, second) = (self.bytes[a.start..][..size].to_vec(), self.bytes[b.start..][..size].to_vec());
                self.bytes[a.start..][..size].copy_from_slice(&second);
                self.bytes[b.start..][..size].copy_from_slice(&first);
            }
            _ => {
                // Often it begins at the same offset, since files of a format begin alike.
                let from = if random.random() { a.start.min(other.len()) } else { b.start.min(other.len()) };
                self.bytes.truncate(a.start);
                self.bytes.extend_from_slice(&other[from..]);
            }
        }
    }
}

/// A number that readers may not expect, in the place of `value`.
pub fn number(value: i64, random: &mut ChaCha8Rng) -> i64 {
    match random.random_range(0..12) {
        0 => 0,
        1 => -1,
        2 => 1,
        3 => value.wrapping_add(1),
        4 => value.wrapping_sub(1),
        5 => value.wrapping_mul(2),
        6 => value / 2,
        7 => -value.max(-i64::MAX),
        8 => i64::from(i32::MAX),
        9 => i64::from(i32::MIN),
        10 => [i64::MAX, i64::MIN, 1 << 32, 1 << 40][random.random_range(0..4)],
        _ => value ^ (1 << random.random_range(0..32)),
    }
}
