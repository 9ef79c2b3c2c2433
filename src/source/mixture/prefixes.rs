use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, LargeBinaryArray, LargeBinaryBuilder};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

/// The type of texts with a prefix: its offsets hold whatever they grow to.
pub(super) const PREFIXED_TYPE: DataType = DataType::LargeUtf8;

/// Whether values of a type are texts, packed or not.
pub(super) fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_text(values),
        DataType::RunEndEncoded(_, values) => is_text(values.data_type()),
        other => other.is_string(),
    }
}

/// Puts the text of each row of `prefixes` before that of `texts`; a null is no prefix.
pub(super) fn before(prefixes: &ArrayRef, texts: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let prefixes = bytes(prefixes)?;
    let prefixes = prefixes.as_binary::<i64>();
    prefixed(texts, &|row| prefixes.is_valid(row).then(|| prefixes.value(row)))
}

/// Puts a text before each of `texts` that is not null. Texts that arrive as bytes, since some are not UTF-8, stay
/// bytes.
pub(super) fn prefixed<'a>(
    texts: &ArrayRef,
    prefix: &dyn Fn(usize) -> Option<&'a [u8]>,
) -> Result<ArrayRef, ArrowError> {
    let values = bytes(texts)?;
    let values = values.as_binary::<i64>();
    let mut builder = LargeBinaryBuilder::with_capacity(values.len(), values.value_data().len());
    let mut text = Vec::new();
    for row in 0..values.len() {
        if values.is_null(row) {
            builder.append_null();
            continue;
        }
        text.clear();
        text.extend_from_slice(prefix(row).unwrap_or_default());
        text.extend_from_slice(values.value(row));
        builder.append_value(&text);
    }
    let joined: LargeBinaryArray = builder.finish();
    // Bytes of which some were not UTF-8 before are left as they are, for the store to count.
    let is_text = is_text(texts.data_type());
    if is_text { cast(&joined, &PREFIXED_TYPE) } else { Ok(Arc::new(joined)) }
}

/// Texts or bytes as bytes.
fn bytes(values: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    cast(values, &DataType::LargeBinary)
}

#[cfg(test)]
mod tests {
    use arrow::array::{BinaryArray, DictionaryArray, LargeStringArray, StringArray, StringViewArray};
    use arrow::datatypes::Int8Type;

    use super::*;

    #[test]
    fn every_layout_of_texts_gets_its_prefix() {
        let expected = LargeStringArray::from(vec![Some("q: a"), None, Some("q: é")]);
        let values = [Some("a"), None, Some("é")];
        let layouts: [ArrayRef; 4] = [
            Arc::new(StringArray::from(values.to_vec())),
            Arc::new(LargeStringArray::from(values.to_vec())),
            Arc::new(StringViewArray::from(values.to_vec())),
            Arc::new(values.into_iter().collect::<DictionaryArray<Int8Type>>()),
        ];
        for texts in layouts {
            assert!(is_text(texts.data_type()));
            let found = prefixed(&texts, &|_| Some(b"q: ")).unwrap();
            assert_eq!(found.as_string::<i64>(), &expected);
        }
    }

    #[test]
    fn prefixes_come_row_by_row() {
        let prefixes: ArrayRef = Arc::new(StringArray::from(vec![Some("x "), Some("y "), None]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("c")]));
        let found = before(&prefixes, &texts).unwrap();
        assert_eq!(found.as_string::<i64>(), &LargeStringArray::from(vec![Some("x a"), None, Some("c")]));
    }

    #[test]
    fn bytes_that_are_not_utf_8_stay_bytes() {
        let texts: ArrayRef = Arc::new(BinaryArray::from(vec![&b"a"[..], &b"\xff"[..]]));
        let found = prefixed(&texts, &|_| Some(b"q")).unwrap();
        assert_eq!(found.as_binary::<i64>(), &LargeBinaryArray::from(vec![&b"qa"[..], &b"q\xff"[..]]));
    }
}
