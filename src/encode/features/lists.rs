//! A column of numbers or (nested) lists of numbers, each row as one run of numbers.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Float32Type, Int64Type};

use crate::encode::inputs::Numbers;

/// A column of (nested) lists, looked through down to its numbers.
pub(super) struct Lists {
    levels: Vec<ArrayRef>,
    numbers: ArrayRef,
}

impl Lists {
    pub fn new(column: &ArrayRef) -> Self {
        let (mut levels, mut numbers) = (Vec::new(), column.clone());
        while let Some(inner) = values(&numbers) {
            levels.push(std::mem::replace(&mut numbers, inner));
        }
        Self { levels, numbers }
    }

    /// The numbers in this range, in one of the two types that inputs are made of.
    ///
    /// # Errors
    /// Where one is not finite, or does not fit.
    pub fn get(&self, range: Range<usize>) -> Result<Numbers, String> {
        let numbers = self.numbers.slice(range.start, range.len());
        let is_whole = numbers.data_type().is_integer();
        let to = if is_whole { DataType::Int64 } else { DataType::Float32 };
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let numbers = cast_with_options(&numbers, &to, &options).map_err(|e| format!("cannot be read ({e})"))?;
        if is_whole {
            return Ok(Numbers::Whole(numbers.as_primitive::<Int64Type>().values().to_vec()));
        }
        let numbers = numbers.as_primitive::<Float32Type>().values();
        match numbers.iter().find(|x| !x.is_finite()) {
            Some(odd) => Err(format!("has a value of {odd}")),
            None => Ok(Numbers::Fractions(numbers.to_vec())),
        }
    }

    /// Lists within each other: 0 for plain numbers.
    pub fn depth(&self) -> usize {
        self.levels.len()
    }

    /// The numbers, of all rows.
    pub fn numbers(&self) -> &ArrayRef {
        &self.numbers
    }

    /// Where the numbers of a row lie.
    ///
    /// # Errors
    /// Where something of the row is null.
    pub fn range(&self, row: usize) -> Result<Range<usize>, String> {
        let mut range = row..row + 1;
        for level in &self.levels {
            refuse_nulls(level, &range)?;
            range = bounds(level, &range);
        }
        refuse_nulls(&self.numbers, &range)?;
        Ok(range)
    }

    /// The dimensions of a row, one for each level of lists.
    ///
    /// # Errors
    /// Where lists of one level have different lengths, or something is null.
    pub fn dimensions(&self, row: usize) -> Result<Vec<usize>, String> {
        let (mut range, mut dimensions) = (row..row + 1, Vec::new());
        for level in &self.levels {
            refuse_nulls(level, &range)?;
            let length = |at: usize| bounds(level, &(at..at + 1)).len();
            let first = range.clone().next().map_or(0, length);
            if let Some(other) = range.clone().map(length).find(|other| *other != first) {
                return Err(format!("has lists of {first} and of {other} where all must be of one length"));
            }
            dimensions.push(first);
            range = bounds(level, &range);
        }
        refuse_nulls(&self.numbers, &range)?;
        Ok(dimensions)
    }
}

/// The type of numbers below all lists.
pub(super) fn number_type(mut data_type: &DataType) -> &DataType {
    while let DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) = data_type {
        data_type = item.data_type();
    }
    data_type
}

fn values(list: &ArrayRef) -> Option<ArrayRef> {
    match list.data_type() {
        DataType::List(_) => Some(list.as_list::<i32>().values().clone()),
        DataType::LargeList(_) => Some(list.as_list::<i64>().values().clone()),
        DataType::FixedSizeList(..) => Some(list.as_fixed_size_list().values().clone()),
        _ => None,
    }
}

/// Where the values of consecutive lists lie.
fn bounds(list: &ArrayRef, range: &Range<usize>) -> Range<usize> {
    let at = |i: usize| match list.data_type() {
        DataType::List(_) => list.as_list::<i32>().value_offsets()[i] as usize,
        DataType::LargeList(_) => list.as_list::<i64>().value_offsets()[i] as usize,
        _ => list.as_fixed_size_list().value_offset_at(i),
    };
    at(range.start)..at(range.end)
}

fn refuse_nulls(array: &ArrayRef, range: &Range<usize>) -> Result<(), String> {
    let null = array.nulls().is_some_and(|nulls| nulls.slice(range.start, range.len()).null_count() > 0);
    if null { Err("has a null within".into()) } else { Ok(()) }
}
