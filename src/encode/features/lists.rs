//! Reads columns of numbers, or of nested lists of numbers, row by row.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Float32Type, Int64Type};

use crate::encode::inputs::Numbers;

/// A column of numbers or nested lists, taken apart.
pub(super) struct Lists {
    /// The arrays of lists, the outermost first.
    levels: Vec<ArrayRef>,
    /// The numbers of all rows.
    numbers: ArrayRef,
}

impl Lists {
    /// Takes a column apart.
    pub fn new(column: &ArrayRef) -> Self {
        let mut levels = Vec::new();
        let mut numbers = column.clone();
        while let Some(inner) = values(&numbers) {
            levels.push(std::mem::replace(&mut numbers, inner));
        }
        Self { levels, numbers }
    }

    /// Makes a column of rows of numbers, which are all whole or all fractions.
    pub fn of(rows: &[Numbers]) -> Self {
        let whole = |numbers: &Numbers| match numbers {
            Numbers::Whole(numbers) => Some(numbers.iter().copied().map(Some).collect::<Vec<_>>()),
            Numbers::Fractions(_) => None,
        };
        let fractions = |numbers: &Numbers| match numbers {
            Numbers::Fractions(numbers) => Some(numbers.iter().copied().map(Some).collect::<Vec<_>>()),
            Numbers::Whole(_) => None,
        };
        let lists = match rows.first() {
            Some(Numbers::Whole(_)) => ListArray::from_iter_primitive::<Int64Type, _, _>(rows.iter().map(whole)),
            _ => ListArray::from_iter_primitive::<Float32Type, _, _>(rows.iter().map(fractions)),
        };
        Self::new(&(Arc::new(lists) as ArrayRef))
    }

    /// Returns the numbers in this range as `i64` or `f32`.
    ///
    /// # Errors
    /// The reason, if one of them is not finite or does not fit the type.
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

    /// Returns how deep lists are nested: 0 for a column of numbers.
    pub fn depth(&self) -> usize {
        self.levels.len()
    }

    /// Returns the numbers of all rows.
    pub fn numbers(&self) -> &ArrayRef {
        &self.numbers
    }

    /// Returns the range of a row's numbers.
    ///
    /// # Errors
    /// The reason, if the row has a null.
    pub fn range(&self, row: usize) -> Result<Range<usize>, String> {
        let mut range = row..row + 1;
        for level in &self.levels {
            refuse_nulls(level, &range)?;
            range = bounds(level, &range);
        }
        refuse_nulls(&self.numbers, &range)?;
        Ok(range)
    }

    /// Returns the dimensions of a row, one for each level of lists.
    ///
    /// # Errors
    /// The reason, if lists of one level differ in length, or the row has a null.
    pub fn dimensions(&self, row: usize) -> Result<Vec<usize>, String> {
        let mut range = row..row + 1;
        let mut dimensions = Vec::new();
        for level in &self.levels {
            refuse_nulls(level, &range)?;
            let length = |list: usize| bounds(level, &(list..list + 1)).len();
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

/// Returns the type of the numbers in nested lists.
pub(super) fn number_type(mut data_type: &DataType) -> &DataType {
    while let DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) = data_type {
        data_type = item.data_type();
    }
    data_type
}

/// Returns the values of an array of lists; `None` for another array.
fn values(list: &ArrayRef) -> Option<ArrayRef> {
    match list.data_type() {
        DataType::List(_) => Some(list.as_list::<i32>().values().clone()),
        DataType::LargeList(_) => Some(list.as_list::<i64>().values().clone()),
        DataType::FixedSizeList(..) => Some(list.as_fixed_size_list().values().clone()),
        _ => None,
    }
}

/// Returns the range of the values of consecutive lists.
fn bounds(list: &ArrayRef, range: &Range<usize>) -> Range<usize> {
    let offset = |i: usize| match list.data_type() {
        DataType::List(_) => list.as_list::<i32>().value_offsets()[i] as usize,
        DataType::LargeList(_) => list.as_list::<i64>().value_offsets()[i] as usize,
        _ => list.as_fixed_size_list().value_offset_at(i),
    };
    offset(range.start)..offset(range.end)
}

fn refuse_nulls(array: &ArrayRef, range: &Range<usize>) -> Result<(), String> {
    let null = array.nulls().is_some_and(|nulls| nulls.slice(range.start, range.len()).null_count() > 0);
    if null { Err("has a null within".into()) } else { Ok(()) }
}
