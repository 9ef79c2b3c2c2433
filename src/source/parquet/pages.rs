//! Checks the counts that pages state before the decoder believes them.
//!
//! The decoder allocates memory for as many values as a page says that it has. If that fails, the process aborts, which
//! nobody can catch.

use std::sync::Arc;

use bytes::Bytes;
use parquet::arrow::arrow_reader::RowGroups;
use parquet::basic::{Encoding, Type};
use parquet::column::page::{Page, PageIterator, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::ColumnDescriptor;

use super::varint::{byte, pass, varint};
use crate::source::location::ShardReader;

/// A row group whose pages are checked before the decoder gets them.
pub(super) struct CheckedRowGroup {
    pub input: Arc<ShardReader>,
    pub metadata: Arc<ParquetMetaData>,
    /// The number of the row group in the file, from 0.
    pub number: usize,
}

impl CheckedRowGroup {
    fn row_group(&self) -> &RowGroupMetaData {
        self.metadata.row_group(self.number)
    }
}

impl RowGroups for CheckedRowGroup {
    fn num_rows(&self) -> usize {
        usize::try_from(self.row_group().num_rows()).unwrap_or(0)
    }

    fn column_chunks(&self, leaf: usize) -> Result<Box<dyn PageIterator>> {
        let chunk = self.row_group().column(leaf);
        let pages = SerializedPageReader::new(self.input.clone(), chunk, self.num_rows(), None)?;
        let pages = CheckedPages { pages, limits: Limits::of(chunk.column_descr()) };
        Ok(Box::new(OneChunk(Some(pages))))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        Box::new(std::iter::once(self.row_group()))
    }

    fn metadata(&self) -> &ParquetMetaData {
        &self.metadata
    }
}

/// The column chunk of one row group.
struct OneChunk(Option<CheckedPages>);

impl Iterator for OneChunk {
    type Item = Result<Box<dyn PageReader>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.take().map(|pages| Ok(Box::new(pages) as _))
    }
}

impl PageIterator for OneChunk {}

/// A reader of pages that checks each against its column's limits.
struct CheckedPages {
    pages: SerializedPageReader<ShardReader>,
    limits: Limits,
}

impl Iterator for CheckedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        self.limits.checked(self.pages.get_next_page()?)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }

    fn supports_deferred_dictionary(&self) -> bool {
        self.pages.supports_deferred_dictionary()
    }

    fn take_deferred_dictionary(&mut self) -> Result<Option<Page>> {
        self.limits.checked(self.pages.take_deferred_dictionary()?)
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.pages.at_record_boundary()
    }
}

/// What limits the values in a column's pages.
struct Limits {
    /// The fewest bytes that a value takes in a dictionary.
    value_bytes: usize,
    max_repetition: i16,
    max_definition: i16,
}

impl Limits {
    fn of(column: &ColumnDescriptor) -> Self {
        let value_bytes = match column.physical_type() {
            Type::BOOLEAN => 1,
            Type::INT32 | Type::FLOAT | Type::BYTE_ARRAY => 4,
            Type::INT64 | Type::DOUBLE => 8,
            Type::INT96 => 12,
            Type::FIXED_LEN_BYTE_ARRAY => usize::try_from(column.type_length()).unwrap_or(0),
        };
        Self { value_bytes, max_repetition: column.max_rep_level(), max_definition: column.max_def_level() }
    }

    /// Returns the page if what it states is possible.
    fn checked(&self, page: Option<Page>) -> Result<Option<Page>> {
        match &page {
            Some(Page::DictionaryPage { buf, num_values, .. }) => self.check_dictionary(buf, *num_values)?,
            Some(Page::DataPage { buf, num_values, encoding, def_level_encoding, rep_level_encoding, .. }) => {
                let levels = [(self.max_repetition, rep_level_encoding), (self.max_definition, def_level_encoding)];
                let values_of =
                    |rest, (max, encoding): (i16, &Encoding)| after_levels(rest, max, *encoding, *num_values);
                let values = levels.into_iter().try_fold(&buf[..], values_of);
                check_lengths(*encoding, values, *num_values)?;
            }
            Some(Page::DataPageV2 { buf, num_values, encoding, def_levels_byte_len, rep_levels_byte_len, .. }) => {
                let levels = u64::from(*def_levels_byte_len) + u64::from(*rep_levels_byte_len);
                let values = usize::try_from(levels).ok().and_then(|levels| buf.get(levels..));
                check_lengths(*encoding, values, *num_values)?;
            }
            None => {}
        }
        Ok(page)
    }

    fn check_dictionary(&self, buffer: &Bytes, values: u32) -> Result<()> {
        let fits = self.value_bytes == 0 || values as usize <= buffer.len() / self.value_bytes;
        let says = || format!("a dictionary of {} bytes is said to have {values} values", buffer.len());
        if fits { Ok(()) } else { Err(ParquetError::General(says())) }
    }
}

/// Returns what follows the levels of a page's values; `None` if these are malformed.
fn after_levels(rest: &[u8], max: i16, encoding: Encoding, values: u32) -> Option<&[u8]> {
    if max == 0 {
        return Some(rest);
    }
    #[expect(deprecated, reason = "old files use it")]
    let packed = encoding == Encoding::BIT_PACKED;
    if packed {
        let bits = u64::from(u16::BITS - max.unsigned_abs().leading_zeros());
        return rest.get(usize::try_from((u64::from(values) * bits).div_ceil(8)).ok()?..);
    }
    let length = u32::from_le_bytes(*rest.first_chunk()?);
    rest[4..].get(length as usize..)
}

/// Refuses a page with more lengths than values: texts and bytes that are delta encoded begin with their lengths.
fn check_lengths(encoding: Encoding, values: Option<&[u8]>, page_values: u32) -> Result<()> {
    let lists = match encoding {
        Encoding::DELTA_LENGTH_BYTE_ARRAY => 1,
        // One list has the lengths of the prefixes shared with the value before, one those of the rest.
        Encoding::DELTA_BYTE_ARRAY => 2,
        _ => return Ok(()),
    };
    // The decoder refuses a page without values.
    let Some(mut rest) = values else { return Ok(()) };
    for _ in 0..lists {
        let Some(header) = DeltaHeader::read(&mut rest) else { return Ok(()) };
        if header.count > u64::from(page_values) {
            let says = format!("a page of {page_values} values is said to have {} lengths", header.count);
            return Err(ParquetError::General(says));
        }
        if header.pass_numbers(&mut rest).is_none() {
            return Ok(());
        }
    }
    Ok(())
}

/// What delta encoded whole numbers begin with. See "Delta encoding" in Parquet's format.
struct DeltaHeader {
    /// How many numbers there are.
    count: u64,
    /// Parts of a block, each with a bit width of its own.
    parts: u64,
    /// Numbers of a part.
    per_part: u64,
}

impl DeltaHeader {
    fn read(rest: &mut &[u8]) -> Option<Self> {
        let mut next = || varint(rest).ok();
        let (block, parts, count, _first) = (next()?, next()?, next()?, next()?);
        Some(Self { count, parts, per_part: block.checked_div(parts)? })
    }

    /// Goes past the numbers, if they are written as they should be.
    fn pass_numbers(&self, rest: &mut &[u8]) -> Option<()> {
        let Self { count, parts, per_part } = *self;
        let mut left = count.saturating_sub(1);
        while left > 0 {
            let _smallest = varint(rest).ok()?;
            let mut widths = *rest;
            pass(rest, parts).ok()?;
            for _ in 0..parts.min(left.checked_div(per_part)?.saturating_add(1)) {
                let width = u64::from(byte(&mut widths).ok()?);
                // Some writers omit the end of the last part.
                let packed = per_part.checked_mul(width)?.div_ceil(8);
                if pass(rest, packed).is_err() {
                    *rest = &[];
                }
                left = left.saturating_sub(per_part);
                if left == 0 {
                    break;
                }
            }
        }
        Some(())
    }
}
#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, ListBuilder, RecordBatch, StringBuilder};
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::{WriterProperties, WriterVersion};
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_dictionary_holds_its_values() {
        let page = |values| {
            let buf = Bytes::from_static(&[0; 8]);
            Some(Page::DictionaryPage { buf, num_values: values, encoding: Encoding::PLAIN, is_sorted: false })
        };
        let limits = Limits { value_bytes: 4, max_repetition: 0, max_definition: 0 };
        assert!(limits.checked(page(2)).is_ok());
        let error = limits.checked(page(3)).unwrap_err().to_string();
        assert!(error.contains("a dictionary of 8 bytes is said to have 3 values"), "{error}");
    }

    fn lengths(rest: &mut &[u8]) -> u64 {
        let header = DeltaHeader::read(rest).unwrap();
        header.pass_numbers(rest).unwrap();
        header.count
    }

    /// The numbers that should follow are not there: the decoder would first ask for memory for all.
    #[test]
    fn more_lengths_than_values_are_refused_wherever_they_end() {
        let mut list = vec![0x80, 1, 4];
        list.extend([0xff; 8]);
        list.extend([0x7f, 0]);
        for encoding in [Encoding::DELTA_LENGTH_BYTE_ARRAY, Encoding::DELTA_BYTE_ARRAY] {
            let error = check_lengths(encoding, Some(&list), 3).unwrap_err().to_string();
            assert!(error.contains("a page of 3 values is said to have 9223372036854775807 lengths"), "{error}");
        }
        // One length, which is in the header, and then a second list that is too long.
        let one = [0x80, 1, 4, 1, 0];
        assert!(check_lengths(Encoding::DELTA_LENGTH_BYTE_ARRAY, Some(&one), 1).is_ok());
        assert!(check_lengths(Encoding::DELTA_BYTE_ARRAY, Some(&[&one[..], &list].concat()), 1).is_err());
    }

    /// A column chunk of lists of texts, some null, packed by their differences.
    fn written(rows: &[Vec<Option<String>>], encoding: Encoding, version: WriterVersion) -> Bytes {
        let mut lists = ListBuilder::new(StringBuilder::new());
        rows.iter().for_each(|row| lists.append_value(row.clone()));
        let column: ArrayRef = Arc::new(lists.finish());
        let batch = RecordBatch::try_from_iter([("texts", column)]).unwrap();
        let properties = WriterProperties::builder()
            .set_dictionary_enabled(false)
            .set_encoding(encoding)
            .set_writer_version(version)
            .build();
        let mut file = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        file.into()
    }

    proptest! {
        /// The lengths that a page begins with are found behind its levels, and are as many as it has texts.
        #[test]
        fn lengths_are_as_many_as_texts(
            rows in prop::collection::vec(prop::collection::vec(prop::option::of("[a-c]{0,9}"), 0..5), 1..300),
            differences in any::<bool>(),
            newer in any::<bool>(),
        ) {
            let encoding = [Encoding::DELTA_LENGTH_BYTE_ARRAY, Encoding::DELTA_BYTE_ARRAY][usize::from(differences)];
            let version = [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0][usize::from(newer)];
            let file = SerializedFileReader::new(written(&rows, encoding, version)).unwrap();
            let limits = Limits::of(&file.metadata().file_metadata().schema_descr().column(0));
            let row_group = file.get_row_group(0).unwrap();
            let mut texts = 0;
            for page in row_group.get_column_page_reader(0).unwrap() {
                let page = page.unwrap();
                prop_assert!(limits.checked(Some(page.clone())).is_ok());
                let mut rest = match &page {
                    Page::DataPage { buf, num_values, .. } => {
                        let rest = after_levels(buf, limits.max_repetition, Encoding::RLE, *num_values).unwrap();
                        after_levels(rest, limits.max_definition, Encoding::RLE, *num_values).unwrap()
                    }
                    Page::DataPageV2 { buf, def_levels_byte_len, rep_levels_byte_len, .. } => {
                        &buf[(def_levels_byte_len + rep_levels_byte_len) as usize..]
                    }
                    Page::DictionaryPage { .. } => unreachable!(),
                };
                let values = Some(rest);
                let count = lengths(&mut rest);
                if differences {
                    prop_assert_eq!(lengths(&mut rest), count);
                }
                if count > 0 {
                    prop_assert!(check_lengths(encoding, values, count as u32 - 1).is_err());
                }
                texts += count as usize;
            }
            prop_assert_eq!(texts, rows.iter().flatten().flatten().count());
        }
    }
}
