//! Checksums of a file's parts: XXH3 of 64 bits, which finds any chance damage (not tampering) and takes less time than
//! reading the bytes from memory.

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

/// Passes bytes on, and adds them up.
pub(super) struct Summed<W> {
    inner: W,
    sum: XxHash3_64,
}

impl<W> Summed<W> {
    pub fn new(inner: W) -> Self {
        Self { inner, sum: XxHash3_64::new() }
    }

    /// The checksum of what was written since the last call.
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

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // A column of a record batch comes as a whole: in pieces it is in the processor's cache when it is added up.
        let written = self.inner.write(&bytes[..bytes.len().min(PIECE)])?;
        self.sum.write(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

/// Of the content of rows, wherever they are cut out of; what their schema notes besides does not matter.
pub(crate) fn checksum_of_rows(rows: &RecordBatch) -> Result<u64, ArrowError> {
    let schema = Arc::new(Schema::new(rows.schema().fields().clone()));
    let mut writer = StreamWriter::try_new(Summed::new(std::io::sink()), &schema)?;
    writer.write(&RecordBatch::try_new(schema, rows.columns().to_vec())?)?;
    Ok(writer.into_inner()?.take())
}

pub(crate) fn to_text(checksum: u64) -> String {
    format!("{checksum:016x}")
}

fn from_text(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok().filter(|_| text.len() == DIGITS)
}

/// Where in its own bytes a footer has the checksum of all its other bytes.
pub(super) fn place_in(footer: &Footer<'_>, bytes: &[u8]) -> Option<Range<usize>> {
    let text = noted(footer, OF_FOOTER).filter(|text| text.len() == DIGITS)?;
    let start = (text.as_ptr() as usize).checked_sub(bytes.as_ptr() as usize)?;
    (start + DIGITS <= bytes.len()).then_some(start..start + DIGITS)
}

/// The checksum of a footer but for the checksum that stands in it.
pub(super) fn of_footer(bytes: &[u8], place: &Range<usize>) -> u64 {
    let mut sum = XxHash3_64::new();
    sum.write(&bytes[..place.start]);
    sum.write(&bytes[place.end..]);
    sum.finish()
}

/// The checksums of what comes before the first record batch, and of each record batch.
pub(super) fn of_parts(footer: &Footer<'_>) -> Option<Vec<u64>> {
    let text = noted(footer, OF_PARTS)?;
    text.as_bytes().chunks(DIGITS).map(|digits| from_text(std::str::from_utf8(digits).ok()?)).collect()
}

fn noted<'a>(footer: &Footer<'a>, key: &str) -> Option<&'a str> {
    footer.custom_metadata()?.iter().find(|pair| pair.key() == Some(key))?.value()
}

/// Keys of what a footer notes.
pub(super) const OF_PARTS: &str = "prosampler.checksums";
pub(super) const OF_FOOTER: &str = "prosampler.footer_checksum";

/// Bytes that are written at once.
const PIECE: usize = 256 << 10;

/// Of a checksum as text.
pub(super) const DIGITS: usize = 16;
