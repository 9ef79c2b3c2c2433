//! Checksums of a file's parts.
//!
//! They are XXH3 of 64 bits, which finds damage by chance, not tampering, and is faster than reading from memory.

use std::hash::Hasher;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::ipc::Footer;
use arrow::ipc::writer::StreamWriter;
use twox_hash::XxHash3_64;

/// A writer that passes bytes on and computes their checksum.
pub(super) struct ChecksumWriter<W> {
    inner: W,
    sum: XxHash3_64,
}

impl<W> ChecksumWriter<W> {
    pub fn new(inner: W) -> Self {
        Self { inner, sum: XxHash3_64::new() }
    }

    /// Returns the checksum of what was written since the last call.
    pub fn take(&mut self) -> u64 {
        std::mem::take(&mut self.sum).finish()
    }

    pub fn get_ref(&self) -> &W {
        &self.inner
    }

    pub fn into_inner(self) -> W {
        self.inner
    }
}

impl<W: Write> Write for ChecksumWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // A column is written as a whole. In pieces it is still in the processor's cache for the checksum.
        let written = self.inner.write(&bytes[..bytes.len().min(MAX_PIECE_BYTES)])?;
        self.sum.write(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// Returns the checksum of these bytes.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

/// Returns the checksum of the content of rows, whatever they are a slice of; metadata do not count.
pub(crate) fn checksum_of_rows(rows: &RecordBatch) -> Result<u64, ArrowError> {
    let schema = Arc::new(Schema::new(rows.schema().fields().clone()));
    let mut writer = StreamWriter::try_new(ChecksumWriter::new(std::io::sink()), &schema)?;
    writer.write(&RecordBatch::try_new(schema, rows.columns().to_vec())?)?;
    Ok(writer.into_inner()?.take())
}

/// Formats a checksum with [`DIGITS`] hexadecimal digits.
pub(crate) fn to_text(checksum: u64) -> String {
    format!("{checksum:016x}")
}

fn from_text(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok().filter(|_| text.len() == DIGITS)
}

/// Finds where a footer's own bytes have the checksum of all its other bytes.
pub(super) fn range_in(footer: &Footer<'_>, bytes: &[u8]) -> Option<Range<usize>> {
    let text = metadata(footer, OF_FOOTER).filter(|text| text.len() == DIGITS)?;
    let start = (text.as_ptr() as usize).checked_sub(bytes.as_ptr() as usize)?;
    (start + DIGITS <= bytes.len()).then_some(start..start + DIGITS)
}

/// Returns the checksum of a footer without the range that holds its checksum.
pub(super) fn of_footer(bytes: &[u8], range: &Range<usize>) -> u64 {
    let mut sum = XxHash3_64::new();
    sum.write(&bytes[..range.start]);
    sum.write(&bytes[range.end..]);
    sum.finish()
}

/// Reads the checksums of what precedes the first record batch, and of each record batch.
pub(super) fn of_parts(footer: &Footer<'_>) -> Option<Vec<u64>> {
    let text = metadata(footer, OF_PARTS)?;
    text.as_bytes().chunks(DIGITS).map(|digits| from_text(std::str::from_utf8(digits).ok()?)).collect()
}

fn metadata<'a>(footer: &Footer<'a>, key: &str) -> Option<&'a str> {
    footer.custom_metadata()?.iter().find(|pair| pair.key() == Some(key))?.value()
}

/// Keys of a footer's metadata.
pub(super) const OF_PARTS: &str = "prosampler.checksums";
pub(super) const OF_FOOTER: &str = "prosampler.footer_checksum";

/// The most bytes that are written at once.
const MAX_PIECE_BYTES: usize = 256 << 10;

/// The digits of a checksum as text.
pub(super) const DIGITS: usize = 16;
