//! Columns of numbers as inputs of any model.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use super::lists::{Lists, number_type};
use super::{Batch, Feature, Samples};
use crate::config::EncodeConfig;
use crate::encode::BadRow;
use crate::encode::batching::{Grouping, length_sorted};
use crate::encode::inputs::{Declared, Given, Input, Numbers};
use crate::encode::model::Model;
use crate::encode::outputs::Counted;
use crate::error::{ColumnError, Result, quoted};

/// Columns of numbers, each for one input of the model.
pub(super) struct TensorFeature {
    columns: Vec<String>,
    /// The inputs, each for the column at the same index.
    inputs: Vec<Declared>,
    /// What each input takes of a row.
    shapes: Vec<RowShape>,
    /// The names of masks, each with the index of the input that it belongs to.
    masks: Vec<(String, usize)>,
}

/// What an input takes of a row.
#[derive(Clone, Copy, Debug)]
struct RowShape {
    /// The numbers of a step, which is an index on the second axis.
    width: usize,
    /// The number of steps, if the model fixes it.
    steps: Option<usize>,
    /// Whether a mask tells the model how many steps a row has.
    is_masked: bool,
}

/// Rows of a record batch as tensors.
struct Tensors<'a> {
    feature: &'a TensorFeature,
    lists: Vec<Lists>,
    /// For each row, the numbers in those inputs whose rows may differ in length.
    sizes: Vec<Vec<usize>>,
    /// For each row, the numbers in the longest input with open length.
    lengths: Vec<usize>,
}

impl TensorFeature {
    /// Opens the feature for a model.
    pub fn open(config: &EncodeConfig, model: &Model) -> Result<Self> {
        let names = config.tensor.as_ref().map(|tensor| &tensor.inputs);
        let column = |input: &Declared| names?.iter().find(|(name, _)| input.is(name)).map(|(_, column)| column);
        if let Some(name) = names.into_iter().flat_map(BTreeMap::keys).find(|n| !model.inputs.iter().any(|i| i.is(n))) {
            let declared: Vec<_> = model.inputs.iter().map(|input| &input.name).collect();
            let reason =
                format!("declares no input `{name}`, which encode.tensor.inputs names; it has {}", quoted(&declared));
            return Err(model.fault(reason, None));
        }
        let is_mask =
            |input: &&Declared| column(input).is_none() && (input.is(MASK) || input.base_name().ends_with(MASK_SUFFIX));
        let (masks, inputs): (Vec<_>, Vec<_>) = model.inputs.iter().partition(is_mask);
        if let Some(input) = inputs.iter().find(|i| (2..i.shape.len()).any(|axis| i.dimension(axis).is_none())) {
            let reason = format!(
                "leaves more than batch and length of input `{}` open; export it with its other dimensions fixed",
                input.name
            );
            return Err(model.fault(reason, None));
        }
        let index = |name: &str| inputs.iter().position(|input| input.is(name));
        // A mask that names no input belongs to the only one that is as long.
        let only_alike = |mask: &Declared| -> Option<usize> {
            let fits = |input: &&Declared| input.shape.len() > 1 && input.dimension(1) == mask.dimension(1);
            let mut fitting = inputs.iter().enumerate().filter(|(_, input)| fits(input)).map(|(index, _)| index);
            fitting.next().filter(|_| fitting.next().is_none())
        };
        let masked =
            |mask: &Declared| mask.base_name().strip_suffix(MASK_SUFFIX).and_then(index).or_else(|| only_alike(mask));
        let masks: Vec<_> = masks.iter().filter_map(|mask| Some((mask.name.clone(), masked(mask)?))).collect();
        let is_masked = |input: usize| masks.iter().any(|(_, masked)| *masked == input);
        Ok(Self {
            columns: inputs
                .iter()
                .map(|input| column(input).map_or(input.base_name(), String::as_str).to_owned())
                .collect(),
            shapes: inputs.iter().enumerate().map(|(index, input)| RowShape::of(input, is_masked(index))).collect(),
            inputs: inputs.into_iter().cloned().collect(),
            masks,
        })
    }

    /// Makes the inputs for rows, each with numbers for all columns.
    fn batch(&self, rows: Vec<Vec<Numbers>>) -> Batch {
        let count = rows.len();
        let mut batch = Batch::default();
        let mut columns: Vec<Vec<Numbers>> = self.inputs.iter().map(|_| Vec::with_capacity(count)).collect();
        for row in rows {
            columns.iter_mut().zip(row).for_each(|(column, numbers)| column.push(numbers));
        }
        for (index, ((declared, shape), column)) in self.inputs.iter().zip(&self.shapes).zip(columns).enumerate() {
            let lengths: Vec<_> = column.iter().map(|numbers| numbers.len() / shape.width).collect();
            let longest = shape.steps.unwrap_or_else(|| lengths.iter().copied().max().unwrap_or(0).max(1));
            let mut all = Numbers::Whole(Vec::new());
            for (row, numbers) in column.into_iter().enumerate() {
                all.append(numbers, (row + 1) * longest * shape.width);
            }
            let dimension = |axis: usize| match axis {
                0 => count,
                1 => longest,
                _ => declared.dimension(axis).unwrap_or(1),
            };
            let dimensions = (0..declared.shape.len()).map(dimension).collect();
            batch.inputs.push(Input { name: declared.name.clone(), shape: dimensions, numbers: all });
            for (name, _) in self.masks.iter().filter(|(_, masked)| *masked == index) {
                let mask = lengths.iter().flat_map(|&n| (0..longest).map(move |step| i64::from(step < n)));
                let numbers = Numbers::Whole(mask.collect());
                batch.inputs.push(Input { name: name.clone(), shape: vec![count, longest], numbers });
            }
            if shape.is_ragged() {
                batch.counted.push(Counted { rows: lengths.into_iter().map(|n| 0..n).collect(), longest });
            }
        }
        batch
    }

    fn samples(&self, lists: Vec<Lists>, rows: usize) -> Tensors<'_> {
        let numbers = |row: usize, lists: &Lists| lists.range(row).map_or(0, |range| range.len());
        let sizes = |row: usize, wanted: &dyn Fn(&RowShape) -> bool| -> Vec<usize> {
            lists
                .iter()
                .zip(&self.shapes)
                .filter(|(_, shape)| wanted(shape))
                .map(|(lists, _)| numbers(row, lists))
                .collect()
        };
        Tensors {
            sizes: (0..rows).map(|row| sizes(row, &|shape| shape.is_ragged())).collect(),
            lengths: (0..rows)
                .map(|row| sizes(row, &|shape| shape.steps.is_none()).into_iter().max().unwrap_or(0))
                .collect(),
            feature: self,
            lists,
        }
    }
}

impl RowShape {
    fn of(input: &Declared, is_masked: bool) -> Self {
        let fixed = |axis: usize| input.dimension(axis).unwrap_or(1).max(1);
        let width = (2..input.shape.len()).map(fixed).product();
        let steps = if input.shape.len() > 1 { input.dimension(1) } else { Some(1) };
        Self { width, steps, is_masked }
    }

    /// Whether rows may differ in length.
    fn is_ragged(&self) -> bool {
        self.steps.is_none() || self.is_masked
    }

    /// Refuses a row with this many numbers if they are not whole steps, or not as many as the model takes.
    fn check(self, numbers: usize) -> Result<(), String> {
        match self.steps {
            Some(steps) if !self.is_masked && steps * self.width != numbers => {
                Err(format!("has {numbers} numbers where the model takes {}", steps * self.width))
            }
            Some(steps) if steps * self.width < numbers => {
                Err(format!("has {numbers} numbers where the model takes at most {}", steps * self.width))
            }
            _ if !numbers.is_multiple_of(self.width) => {
                Err(format!("has {numbers} numbers where the model takes a multiple of {}", self.width))
            }
            _ if numbers == 0 => Err("has no numbers".into()),
            _ => Ok(()),
        }
    }
}

impl Feature for TensorFeature {
    fn kind(&self) -> &'static str {
        "a tensor"
    }

    fn given(&self) -> Vec<Given> {
        let own = self.inputs.iter().map(|input| Given::new(&input.name, "[batch, …] of numbers", true, true));
        let masks = self.masks.iter().map(|(name, _)| Given::new(name, "[batch, length] of 1 and 0", true, false));
        own.chain(masks).collect()
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn accepts(&self, schema: &Schema) -> Result<()> {
        for (column, input) in self.columns.iter().zip(&self.inputs) {
            let Ok(field) = schema.field_with_name(column) else { continue };
            let numbers = number_type(field.data_type());
            let expected = match numbers {
                other if !(other.is_integer() || other.is_floating()) => "must be numbers or lists of numbers",
                other if other.is_floating() && !input.takes_fractions() => "must be whole numbers",
                _ => continue,
            };
            return Err(ColumnError::Type {
                column: column.clone(),
                found: field.data_type().to_string(),
                expected: format!(
                    "the model's input `{}` {expected}; name another column in `encode.tensor.inputs`",
                    input.name
                ),
            }
            .into());
        }
        Ok(())
    }

    fn prepare<'a>(&'a self, rows: &'a RecordBatch) -> Result<Box<dyn Samples + 'a>> {
        Ok(Box::new(self.samples(rows.columns().iter().map(Lists::new).collect(), rows.num_rows())))
    }

    /// Padding needs a mask, and one mask tells of one input only.
    fn grouping(&self) -> Grouping {
        match self.shapes.iter().filter(|shape| shape.is_ragged()).collect::<Vec<_>>()[..] {
            [] | [RowShape { is_masked: true, .. }] => Grouping::Any,
            _ => Grouping::OfOneLength,
        }
    }

    fn probes(&self) -> Result<Box<dyn Samples + '_>> {
        let lists = self.inputs.iter().zip(&self.shapes).map(|(input, shape)| {
            let rows = [SHORT_STEPS, SHORT_STEPS, LONG_STEPS].into_iter().enumerate().map(|(row, wanted)| {
                let steps = if shape.is_masked {
                    wanted.min(shape.steps.unwrap_or(wanted))
                } else {
                    shape.steps.unwrap_or(wanted)
                };
                // Any model takes these numbers: categories 0 and 1, fractions up to 1.
                let other = |index: usize| row > 0 && (index + row).is_multiple_of(2);
                let indices = 0..steps * shape.width;
                if input.takes_fractions() {
                    Numbers::Fractions(indices.map(|index| if other(index) { 0.5 } else { 1.0 }).collect())
                } else {
                    Numbers::Whole(indices.map(|index| i64::from(!other(index))).collect())
                }
            });
            Lists::of(&rows.collect::<Vec<_>>())
        });
        Ok(Box::new(self.samples(lists.collect(), 3)))
    }
}

impl Tensors<'_> {
    /// Reads the numbers of a row for each input.
    fn read(&self, row: usize) -> Result<Vec<Numbers>, BadRow> {
        let TensorFeature { inputs, shapes, columns, .. } = self.feature;
        let read = |(((lists, input), shape), column): (((&Lists, &Declared), &RowShape), &String)| {
            read_one(lists, (input, shape), row).map_err(|reason| BadRow { row, column: column.clone(), reason })
        };
        self.lists.iter().zip(inputs).zip(shapes).zip(columns).map(read).collect()
    }
}

/// Reads the numbers of a row for one input.
fn read_one(lists: &Lists, (input, shape): (&Declared, &RowShape), row: usize) -> Result<Numbers, String> {
    if lists.depth() > 1 {
        // In lists of another shape, the same count of numbers would be in the wrong order.
        let dimensions = lists.dimensions(row)?;
        let differs = |(axis, &length): (usize, &usize)| input.dimension(axis + 1).is_some_and(|fixed| fixed != length);
        let differs = dimensions.len() + 1 == input.shape.len() && dimensions.iter().enumerate().any(differs);
        // An empty row is reported below.
        if differs && !dimensions.contains(&0) {
            let wanted = input.shape[1..].iter().map(|d| if *d < 0 { "any".to_owned() } else { d.to_string() });
            let wanted = wanted.collect::<Vec<_>>().join(", ");
            return Err(format!("has lists of {dimensions:?} where the model takes [{wanted}]"));
        }
    }
    let range = lists.range(row)?;
    shape.check(range.len())?;
    let numbers = lists.get(range)?;
    input.refuses(&numbers).map_or(Ok(numbers), Err)
}

impl Samples for Tensors<'_> {
    fn groups(&self, grouping: Grouping, max_rows: usize, max_tokens: usize) -> Vec<Vec<usize>> {
        let class = |row: usize| if grouping == Grouping::Any { &[] } else { &self.sizes[row][..] };
        length_sorted(&self.lengths, class, max_rows, max_tokens)
    }

    fn batch(&self, rows: &[usize]) -> Result<Batch> {
        let mut kept = Vec::new();
        let mut bad = Vec::new();
        let mut numbers = Vec::new();
        for &row in rows {
            match self.read(row) {
                Ok(read) => {
                    kept.push(row);
                    numbers.push(read);
                }
                Err(reason) => bad.push(reason),
            }
        }
        Ok(Batch { rows: kept, bad, ..self.feature.batch(numbers) })
    }
}

/// The name of a mask that names no input.
const MASK: &str = "mask";

/// What the names of other masks end with, after the name of their input.
const MASK_SUFFIX: &str = "_mask";

/// The steps of the samples that a model is tried on, if it does not fix them.
const SHORT_STEPS: usize = 9;
const LONG_STEPS: usize = 27;
