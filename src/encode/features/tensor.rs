use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use super::lists::{Lists, number_type};
use super::{Batch, Feature, Samples};
use crate::config::EncodeConfig;
use crate::encode::BadRow;
use crate::encode::batching::length_sorted;
use crate::encode::inputs::{Declared, Given, Input, Numbers};
use crate::encode::model::Model;
use crate::error::{Error, Result, quoted};

/// Columns of numbers, each for one input of the model.
pub(super) struct TensorFeature {
    columns: Vec<String>,
    /// The inputs, each for the column at its place.
    inputs: Vec<Declared>,
    /// Masks, each with the place of the input that it belongs to.
    masks: Vec<(String, usize)>,
}

/// What an input takes of a row.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// Numbers of a step: a place on the second axis.
    width: usize,
    /// Steps, where the model fixes them.
    steps: Option<usize>,
}

struct Tensors<'a> {
    feature: &'a TensorFeature,
    lists: Vec<Lists>,
    lengths: Vec<usize>,
}

impl TensorFeature {
    pub fn open(config: &EncodeConfig, model: &Model) -> Result<Self> {
        let names = config.tensor.as_ref().map(|tensor| &tensor.inputs);
        let column = |input: &Declared| names.and_then(|names| names.get(&input.name));
        if let Some(name) =
            names.into_iter().flat_map(BTreeMap::keys).find(|n| !model.inputs.iter().any(|i| i.name == **n))
        {
            let declared: Vec<_> = model.inputs.iter().map(|input| &input.name).collect();
            let reason =
                format!("declares no input `{name}`, which encode.tensor.inputs names; it has {}", quoted(&declared));
            return Err(model.fault(reason, None));
        }
        let is_open = |input: &&Declared| Shape::of(input).steps.is_none();
        let is_mask = |input: &&Declared| column(input).is_none() && (input.name == MASK || input.name.ends_with(OF));
        let (masks, inputs): (Vec<_>, Vec<_>) = model.inputs.iter().partition(is_mask);
        let only = match inputs.iter().copied().filter(is_open).collect::<Vec<_>>()[..] {
            [only] => Some(only.name.as_str()),
            _ => None,
        };
        if let Some(input) = inputs.iter().find(|i| (2..i.shape.len()).any(|axis| i.dimension(axis).is_none())) {
            let reason = format!(
                "leaves more than batch and length of input `{}` open; export it with its other dimensions fixed",
                input.name
            );
            return Err(model.fault(reason, None));
        }
        let place = |name: &str| inputs.iter().position(|input| input.name == name);
        let of = |mask: &Declared| mask.name.strip_suffix(OF).and_then(place).or_else(|| place(only?));
        Ok(Self {
            columns: inputs.iter().map(|input| column(input).unwrap_or(&input.name).clone()).collect(),
            masks: masks.iter().filter_map(|mask| Some((mask.name.clone(), of(mask)?))).collect(),
            inputs: inputs.into_iter().cloned().collect(),
        })
    }

    /// The inputs for rows of numbers for each column.
    fn batch(&self, rows: Vec<Vec<Numbers>>) -> Batch {
        let (count, mut batch) = (rows.len(), Batch::default());
        let mut columns: Vec<Vec<Numbers>> = self.inputs.iter().map(|_| Vec::with_capacity(count)).collect();
        for row in rows {
            columns.iter_mut().zip(row).for_each(|(column, numbers)| column.push(numbers));
        }
        for ((place, declared), column) in self.inputs.iter().enumerate().zip(columns) {
            let width = Shape::of(declared).width;
            let lengths: Vec<_> = column.iter().map(|numbers| numbers.len() / width).collect();
            let longest = lengths.iter().copied().max().unwrap_or(0).max(1);
            let mut all = Numbers::Whole(Vec::new());
            for (row, numbers) in column.into_iter().enumerate() {
                all.append(numbers, (row + 1) * longest * width);
            }
            let dimension = |axis: usize| match axis {
                0 => count,
                1 => longest,
                _ => declared.dimension(axis).unwrap_or(1),
            };
            let shape = (0..declared.shape.len()).map(dimension).collect();
            batch.inputs.push(Input { name: declared.name.clone(), shape, numbers: all });
            for (name, _) in self.masks.iter().filter(|(_, of)| *of == place) {
                let mask = lengths.iter().flat_map(|&n| (0..longest).map(move |at| i64::from(at < n)));
                let numbers = Numbers::Whole(mask.collect());
                batch.inputs.push(Input { name: name.clone(), shape: vec![count, longest], numbers });
            }
            if batch.lengths.as_ref().is_none_or(|(_, other)| *other < longest) {
                batch.lengths = Some((lengths, longest));
            }
        }
        batch
    }
}

impl Shape {
    fn of(input: &Declared) -> Self {
        let fixed = |axis: usize| input.dimension(axis).unwrap_or(1).max(1);
        let width = (2..input.shape.len()).map(fixed).product();
        let steps = if input.shape.len() > 1 { input.dimension(1) } else { Some(1) };
        Self { width, steps }
    }

    /// Refuses so many numbers where they do not make whole steps, or not as many as are wanted.
    fn check(self, numbers: usize) -> Result<(), String> {
        match self.steps {
            Some(steps) if steps * self.width != numbers => {
                Err(format!("has {numbers} numbers where the model takes {}", steps * self.width))
            }
            None if !numbers.is_multiple_of(self.width) => {
                Err(format!("has {numbers} numbers where the model takes a multiple of {}", self.width))
            }
            None if numbers == 0 => Err("has no numbers".into()),
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
            return Err(Error::ColumnType {
                column: column.clone(),
                found: field.data_type().to_string(),
                expected: format!(
                    "the model's input `{}` {expected}; name another column in `encode.tensor.inputs`",
                    input.name
                ),
            });
        }
        Ok(())
    }

    fn prepare<'a>(&'a self, rows: &'a RecordBatch) -> Result<Box<dyn Samples + 'a>> {
        let lists: Vec<_> = rows.columns().iter().map(Lists::new).collect();
        let is_open: Vec<_> = self.inputs.iter().map(|input| Shape::of(input).steps.is_none()).collect();
        let length = |row: usize| {
            let open = lists.iter().zip(&is_open).filter(|(_, is_open)| **is_open);
            open.map(|(lists, _)| lists.range(row).map_or(0, |range| range.len())).max().unwrap_or(0)
        };
        let lengths = (0..rows.num_rows()).map(length).collect();
        Ok(Box::new(Tensors { feature: self, lists, lengths }))
    }

    fn probe(&self) -> Result<Batch> {
        let ones = |input: &Declared| {
            let Shape { width, steps } = Shape::of(input);
            let numbers = steps.unwrap_or(PROBE) * width;
            if input.takes_fractions() {
                Numbers::Fractions(vec![1.0; numbers])
            } else {
                Numbers::Whole(vec![1; numbers])
            }
        };
        Ok(Batch { rows: vec![0], ..self.batch(vec![self.inputs.iter().map(ones).collect()]) })
    }
}

impl Tensors<'_> {
    /// A row's numbers for each input.
    fn read(&self, row: usize) -> Result<Vec<Numbers>, BadRow> {
        let TensorFeature { inputs, columns, .. } = self.feature;
        let read = |((lists, input), column): ((&Lists, &Declared), &String)| {
            read_one(lists, input, row).map_err(|reason| BadRow { row, column: column.clone(), reason })
        };
        self.lists.iter().zip(inputs).zip(columns).map(read).collect()
    }
}

/// A row's numbers for one input.
fn read_one(lists: &Lists, input: &Declared, row: usize) -> Result<Numbers, String> {
    if lists.depth() > 1 {
        // As many numbers in lists of another shape would come to lie in the wrong places.
        let dimensions = lists.dimensions(row)?;
        let differs = |(axis, &length): (usize, &usize)| input.dimension(axis + 1).is_some_and(|fixed| fixed != length);
        let differs = dimensions.len() + 1 == input.shape.len() && dimensions.iter().enumerate().any(differs);
        // That there are none at all is said below.
        if differs && !dimensions.contains(&0) {
            let wanted = input.shape[1..].iter().map(|d| if *d < 0 { "any".to_owned() } else { d.to_string() });
            let wanted = wanted.collect::<Vec<_>>().join(", ");
            return Err(format!("has lists of {dimensions:?} where the model takes [{wanted}]"));
        }
    }
    let range = lists.range(row)?;
    Shape::of(input).check(range.len())?;
    let numbers = lists.get(range)?;
    input.refuses(&numbers).map_or(Ok(numbers), Err)
}

impl Samples for Tensors<'_> {
    fn groups(&self, max_rows: usize, max_tokens: usize) -> Vec<Vec<usize>> {
        length_sorted(&self.lengths, max_rows, max_tokens)
    }

    fn batch(&self, rows: &[usize]) -> Result<Batch> {
        let (mut kept, mut bad, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
        for &row in rows {
            match self.read(row) {
                Ok(read) => (kept.push(row), numbers.push(read)).1,
                Err(reason) => bad.push(reason),
            }
        }
        Ok(Batch { rows: kept, bad, ..self.feature.batch(numbers) })
    }
}

/// The name of the only mask, and how those of several inputs end.
const MASK: &str = "mask";
const OF: &str = "_mask";

/// Steps that a model is tried on where their number is open.
const PROBE: usize = 8;
