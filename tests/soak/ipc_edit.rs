//! Finds the parts of an Arrow IPC file or stream, and damages them on purpose.

use std::ops::Range;

use prosampler::arrow::ipc::root_as_message;
use rand::{RngExt, rngs::ChaCha8Rng};

use crate::mutate::{Mutant, number};

pub struct IpcLayout {
    /// The ranges of metadata and body of each message.
    messages: Vec<(Range<usize>, Range<usize>)>,
    /// The range of a file's footer.
    footer: Option<Range<usize>>,
}

impl IpcLayout {
    pub fn of(file: &[u8]) -> Self {
        let is_file = file.starts_with(b"ARROW1");
        let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        // After a file's magic bytes there may be padding of any length.
        let padding = file.chunks_exact(8).skip(1).take_while(|word| *word == [0; 8]).count();
        let (mut at, mut messages) = (if is_file { 8 + 8 * padding } else { 0 }, Vec::new());
        while word(at) == u32::MAX as usize && word(at + 4) > 0 {
            let metadata = at + 8..at + 8 + word(at + 4);
            let length = root_as_message(&file[metadata.clone()]).unwrap().bodyLength() as usize;
            at = metadata.end + length;
            messages.push((metadata.clone(), metadata.end..at));
        }
        let footer = is_file.then(|| {
            let end = file.len() - 10;
            end - word(end)..end
        });
        Self { messages, footer }
    }

    /// Damages one place.
    pub fn damage(&self, mutant: &mut Mutant, other: &[u8], random: &mut ChaCha8Rng) {
        let (metadata, body) = self.messages[random.random_range(0..self.messages.len())].clone();
        match random.random_range(0..10) {
            // Lengths and offsets of flatbuffers, nodes and buffers.
            0..=2 => word(mutant, metadata, random),
            3 => mutant.change(metadata, random),
            // The continuation marker and the length.
            4 => mutant.change(metadata.start - 8..metadata.start, random),
            5 => word(mutant, self.footer.clone().unwrap_or(metadata), random),
            // Offsets, validity and values.
            6 => word(mutant, body, random),
            7 => mutant.change(body, random),
            8 => self.rearrange(mutant, random),
            _ => mutant.rearrange(other, random),
        }
    }

    /// Repeats, drops or replaces whole messages.
    fn rearrange(&self, mutant: &mut Mutant, random: &mut ChaCha8Rng) {
        let mut one = || {
            let (metadata, body) = &self.messages[random.random_range(0..self.messages.len())];
            metadata.start - 8..body.end
        };
        let (from, to) = (one(), one());
        let bytes = mutant.bytes[from].to_vec();
        match random.random_range(0..3) {
            0 => mutant.put(to.start..to.start, &bytes),
            1 => mutant.put(to, &[]),
            _ => mutant.put(to, &bytes),
        }
        mutant.moved = true;
    }
}

fn word(mutant: &mut Mutant, region: Range<usize>, random: &mut ChaCha8Rng) {
    let length = if random.random() { 4 } else { 8 };
    let words = region.len() / length;
    if words == 0 {
        return;
    }
    let at = region.start + random.random_range(0..words) * length;
    let mut bytes = [0; 8];
    bytes[..length].copy_from_slice(&mutant.bytes[at..at + length]);
    let old = if length == 4 {
        i64::from(i32::from_le_bytes(bytes[..4].try_into().unwrap()))
    } else {
        i64::from_le_bytes(bytes)
    };
    mutant.put(at..at + length, &number(old, random).to_le_bytes()[..length]);
}
