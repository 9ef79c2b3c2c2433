//! Finds the parts of a Parquet file, and damages them on purpose.

use std::ops::Range;

use parquet::file::metadata::{ParquetMetaDataReader, RowGroupMetaData};
use rand::{RngExt, rngs::ChaCha8Rng};

use crate::mutate::{Mutant, number};
use crate::thrift::{self, Number};

pub struct ParquetLayout {
    pages: Vec<Page>,
    footer: Range<usize>,
    footer_numbers: Vec<Number>,
}

struct Page {
    numbers: Vec<Number>,
    body: Range<usize>,
    /// Its header has a checksum of the body.
    checked: bool,
}

impl ParquetLayout {
    pub fn of(file: &[u8]) -> Self {
        let end = file.len() - 8;
        let length = u32::from_le_bytes(file[end..end + 4].try_into().unwrap()) as usize;
        let footer = end - length..end;
        let (footer_numbers, _) = thrift::numbers(file, footer.start).unwrap();
        let metadata = ParquetMetaDataReader::decode_metadata(&file[footer.clone()]).unwrap();
        let chunks = metadata.row_groups().iter().flat_map(RowGroupMetaData::columns);
        let mut pages = Vec::new();
        for chunk in chunks {
            let (start, length) = chunk.byte_range();
            let (mut at, end) = (start as usize, (start + length) as usize);
            while at < end {
                let (numbers, begin) = thrift::numbers(file, at).unwrap();
                let field = |id| numbers.iter().find(|n| n.path == [id]).map(Number::value);
                let body = begin..begin + field(COMPRESSED_SIZE).unwrap() as usize;
                at = body.end;
                pages.push(Page { checked: field(CRC).is_some(), numbers, body });
            }
        }
        Self { pages, footer, footer_numbers }
    }

    /// Damages one place.
    pub fn damage(&self, mutant: &mut Mutant, other: &[u8], random: &mut ChaCha8Rng) {
        let page = &self.pages[random.random_range(0..self.pages.len())];
        match random.random_range(0..10) {
            0 | 1 => self.edit_footer(mutant, random),
            2 | 3 => edit(mutant, &page.numbers, random),
            4 => mutant.change(page.body.clone(), random),
            // Levels, lengths of levels, and the bit width of dictionary indexes.
            5 => mutant.change(page.body.start..page.body.end.min(page.body.start + 12), random),
            6 => mutant.change(self.footer.clone(), random),
            7 => mutant.change(0..mutant.bytes.len(), random),
            8 => {
                let from = &self.pages[random.random_range(0..self.pages.len())];
                let size = from.body.len().min(page.body.len());
                let bytes = mutant.bytes[from.body.start..][..size].to_vec();
                mutant.put(page.body.start..page.body.start + size, &bytes);
            }
            _ => mutant.rearrange(other, random),
        }
    }

    /// If the footer becomes longer, its length is updated.
    fn edit_footer(&self, mutant: &mut Mutant, random: &mut ChaCha8Rng) {
        edit(mutant, &self.footer_numbers, random);
        let end = mutant.bytes.len() - 8;
        let length = (end - self.footer.start) as u32;
        mutant.bytes[end..end + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// Why changed values may go unnoticed; `None` if a checksum shows them.
    pub fn not_knowable(&self, mutant: &Mutant) -> Option<&'static str> {
        let within = |touched: &Range<usize>, all: &Range<usize>| all.start <= touched.start && touched.end <= all.end;
        let page = |touched: &Range<usize>| self.pages.iter().find(|page| within(touched, &page.body));
        if mutant.moved {
            return Some("whole blocks moved, or a longer number");
        }
        let mut places = mutant.touched.iter().map(page);
        if places.clone().any(|page| page.is_none()) {
            return Some("a header or the footer, which Parquet does not check");
        }
        places.any(|page| page.is_some_and(|page| !page.checked)).then_some("a page without a checksum")
    }
}

fn edit(mutant: &mut Mutant, numbers: &[Number], random: &mut ChaCha8Rng) {
    let one = &numbers[random.random_range(0..numbers.len())];
    let value = number(one.value(), random);
    mutant.put(one.at.clone(), &one.written(value));
}

/// Fields of a page's header.
const COMPRESSED_SIZE: i16 = 3;
const CRC: i16 = 4;
