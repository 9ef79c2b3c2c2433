//! Every encoder keeps the contract that users' own are checked against, and the check finds each rule that is broken.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::{self, ThreadId};

use prosampler::arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StringArray, StructArray};
use prosampler::arrow::datatypes::{DataType, Field, Float32Type, Schema, UInt32Type};
use prosampler::config::{Combine, EncodeConfig, GraphOver, ImageConfig, ImageSize};
use prosampler::encode::{
    BadRow, ColumnEncoder, CombinedEncoder, Encoded, Encoder, OnnxEncoder, PairEncoder, contract,
};
use prosampler::{Error, Result};

use crate::support::{TestEncoder, assert_says, path, read_parquet, rows, vectors};

/// What rounding may do in a model whose batches differ, as a share of a vector's length.
const ROUNDING: f32 = 1e-4;

/// Columns `a` and `b` of vectors of three numbers, some of which are null, too short or without a direction.
fn columns_of_vectors() -> RecordBatch {
    let numbers = vectors(60, 3, 5, 1);
    let column = |bad: usize| -> ArrayRef {
        let row = |row: usize| {
            let numbers = match row {
                _ if row == bad => return None,
                _ if row == bad + 5 => &numbers[..2],
                _ if row == bad + 9 => &[0.0; 3],
                _ => &numbers[(row + bad) % 60 * 3..][..3],
            };
            Some(numbers.iter().copied().map(Some).collect::<Vec<_>>())
        };
        Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>((0..60).map(row)))
    };
    RecordBatch::try_from_iter([("a", column(3)), ("b", column(20))]).unwrap()
}

#[test]
fn encoders_of_columns_keep_the_contract() {
    let rows = columns_of_vectors();
    let of = |column| -> Arc<dyn Encoder> { Arc::new(ColumnEncoder::of_dimension(&rows.schema(), column, 3).unwrap()) };
    contract::check(&of("a"), &rows, 0.0).unwrap();
    for combine in [Combine::Mean, Combine::Concat] {
        let combined = CombinedEncoder::new(vec![of("a"), of("b")], combine).unwrap();
        contract::check(&combined, &rows, 0.0).unwrap();
    }
    for over in [GraphOver::Anchors, GraphOver::Positives, GraphOver::Mean, GraphOver::Cross] {
        contract::check(&PairEncoder::new(of("b"), of("a"), over).unwrap(), &rows, 0.0).unwrap();
    }
}

#[test]
fn models_keep_the_contract() {
    let config = EncodeConfig {
        model: Some(path("data/models/gloss-encoder/model.onnx")),
        column: Some("definition".into()),
        sessions: 2,
        ..EncodeConfig::default()
    };
    let texts = (0..90).map(|i| (i != 4).then(|| format!("{} the meaning of {i}", "very ".repeat(i % 13))));
    let texts: ArrayRef = Arc::new(StringArray::from_iter(texts));
    let rows = RecordBatch::try_from_iter([("definition", texts)]).unwrap();
    contract::check(&OnnxEncoder::open(&config).unwrap(), &rows, ROUNDING).unwrap();

    let image = ImageConfig { size: Some(ImageSize::Exact([8, 6])), ..ImageConfig::default() };
    let config = EncodeConfig {
        model: Some(path("tests/data/features/image_any.onnx")),
        column: Some("image".into()),
        image: Some(image),
        ..EncodeConfig::default()
    };
    let images = read_parquet("tests/data/features/images.parquet");
    contract::check(&OnnxEncoder::open(&config).unwrap(), &images, ROUNDING).unwrap();
}

#[test]
fn an_encoder_in_training_keeps_the_contract() {
    let encoder = TestEncoder::new(100).skipping(|n| n % 11 == 4);
    contract::check(&encoder, &rows(100), 0.0).unwrap();
    encoder.train();
    contract::check(&encoder, &rows(100), 0.0).unwrap();
}

/// What a wrong encoder does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    HasNoName,
    HasNoDimension,
    RefusesItsColumns,
    TakesRowsWithoutItsColumn,
    ReadsAnUnknownField,
    Fails,
    WritesWhatIsNotFinite,
    WritesNothing,
    WritesUnreadableRows,
    ListsRowsTwice,
    ListsRowsThatAreNotThere,
    GivesNoReason,
    ReadsNothing,
    GivesTooFewSimilarities,
    EncodesOtherwise,
    EncodesUnreadableRows,
    CannotEncodeAlone,
    ChangesWithEachCall,
    DependsOnTheOrder,
    DependsOnTheBatch,
    DependsOnBeingAlone,
    ReadsMoreInSmallBatches,
    AllowsNoCall,
    DependsOnTheThread,
    ChangesItsIdentity,
    CannotBeRenewed,
    GrowsWithTheNextModel,
    ReadsOtherColumnsWithTheNextModel,
    LosesItsModelFile,
}

/// Points on a circle for the column `n`, of which rows that end with 7 cannot be read, with one thing wrong.
struct WrongEncoder {
    wrong: Wrong,
    columns: Vec<String>,
    dimension: usize,
    calls: AtomicUsize,
    thread: ThreadId,
}

impl WrongEncoder {
    fn new(wrong: Wrong) -> Self {
        let dimension = if wrong == Wrong::HasNoDimension { 0 } else { 2 };
        Self { wrong, columns: vec!["n".into()], dimension, calls: AtomicUsize::new(0), thread: thread::current().id() }
    }

    fn is(&self, wrong: Wrong) -> bool {
        self.wrong == wrong
    }

    fn is_unreadable(&self, n: u32, rows: usize) -> bool {
        self.is(Wrong::ReadsNothing) || n % 10 == 7 && !(self.is(Wrong::ReadsMoreInSmallBatches) && is_small(rows))
    }

    fn angle(&self, n: u32, row: usize, rows: usize, call: usize) -> f32 {
        let is_off = match self.wrong {
            Wrong::ChangesWithEachCall => call > 1,
            Wrong::DependsOnTheOrder => row == 0,
            Wrong::DependsOnTheBatch => is_small(rows),
            Wrong::DependsOnBeingAlone => rows == 1,
            Wrong::DependsOnTheThread => thread::current().id() != self.thread,
            _ => false,
        };
        n as f32 + if is_off { 0.5 } else { 0.0 }
    }
}

/// Whether a batch is one of two parts of the 40 rows.
fn is_small(rows: usize) -> bool {
    rows > 1 && rows < 30
}

impl Encoder for WrongEncoder {
    fn name(&self) -> &str {
        if self.is(Wrong::HasNoName) { "" } else { "wrong" }
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn field(&self, _: &str) -> Option<&str> {
        self.is(Wrong::ReadsAnUnknownField).then_some("bytes")
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn accepts(&self, _: &str, schema: &Schema) -> Result<()> {
        let accepts = match self.wrong {
            Wrong::RefusesItsColumns => false,
            Wrong::TakesRowsWithoutItsColumn => true,
            _ => schema.index_of("n").is_ok(),
        };
        if accepts { Ok(()) } else { Err(Error::Cancelled) }
    }

    fn model_file(&self) -> Option<&Path> {
        self.is(Wrong::LosesItsModelFile).then_some(Path::new("model.onnx"))
    }

    fn model_files(&self) -> Vec<&Path> {
        Vec::new()
    }

    fn newer(&self) -> Result<Option<Arc<dyn Encoder>>> {
        let mut newer = Self::new(self.wrong);
        match self.wrong {
            Wrong::CannotBeRenewed => return Err(Error::Cancelled),
            Wrong::GrowsWithTheNextModel => newer.dimension += 1,
            Wrong::ReadsOtherColumnsWithTheNextModel => newer.columns.push("text".into()),
            _ => return Ok(None),
        }
        Ok(Some(Arc::new(newer)))
    }

    fn identity(&self) -> Option<String> {
        self.is(Wrong::ChangesItsIdentity).then(|| self.calls.load(Relaxed).to_string())
    }

    fn calls_at_once(&self) -> usize {
        match self.wrong {
            Wrong::AllowsNoCall => 0,
            Wrong::DependsOnTheThread => 2,
            _ => 1,
        }
    }

    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()> {
        let bad = self.encode_readable(rows, vectors)?.bad;
        if self.is(Wrong::EncodesOtherwise) {
            vectors[0] += 1.0;
        }
        let fails = self.is(Wrong::CannotEncodeAlone) || !bad.is_empty() && !self.is(Wrong::EncodesUnreadableRows);
        if fails { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn encode_readable(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<Encoded> {
        let call = self.calls.fetch_add(1, Relaxed);
        if self.is(Wrong::Fails) {
            return Err(Error::Cancelled);
        }
        let mut encoded = Encoded::default();
        let numbers = rows.column(0).as_primitive::<UInt32Type>();
        assert_eq!(numbers.null_count(), 0);
        for (row, (&n, vector)) in numbers.values().iter().zip(vectors.chunks_exact_mut(2)).enumerate() {
            let is_unreadable = self.is_unreadable(n, rows.num_rows());
            if is_unreadable {
                let reason = if self.is(Wrong::GivesNoReason) { "" } else { "ends with 7" };
                let row = if self.is(Wrong::ListsRowsThatAreNotThere) { row + 1000 } else { row };
                let bad = BadRow { row, column: "n".into(), reason: reason.into() };
                encoded.bad.extend(vec![bad; if self.is(Wrong::ListsRowsTwice) { 2 } else { 1 }]);
            }
            let is_written = !is_unreadable || self.is(Wrong::WritesUnreadableRows);
            if is_written && !self.is(Wrong::WritesNothing) {
                let angle = self.angle(n, row, rows.num_rows(), call);
                vector.copy_from_slice(&[angle.cos(), angle.sin()]);
            }
            if self.is(Wrong::WritesWhatIsNotFinite) && n == 9 {
                vector[1] = f32::INFINITY;
            }
        }
        if self.is(Wrong::GivesTooFewSimilarities) {
            encoded.pair_similarities.push(0.5);
        }
        Ok(encoded)
    }
}

#[test]
fn each_rule_that_an_encoder_breaks_is_named() {
    for (wrong, expected) in [
        (Wrong::HasNoName, "`name` is empty"),
        (Wrong::HasNoDimension, "`dimension` is 0, not from 1 to 65536"),
        (Wrong::RefusesItsColumns, "`accepts` refuses the rows: "),
        (Wrong::TakesRowsWithoutItsColumn, "`accepts` takes rows without the column `n`"),
        (Wrong::Fails, "40 rows cannot be encoded: "),
        (Wrong::WritesWhatIsNotFinite, "the vector of row 9 is not finite"),
        (Wrong::WritesNothing, "no vector was written"),
        (Wrong::WritesUnreadableRows, "row 7 cannot be read, but its vector is not left at zero"),
        (Wrong::ListsRowsTwice, "not listed once each, in order"),
        (Wrong::ListsRowsThatAreNotThere, "row 1007 of 40 is said to be unreadable"),
        (Wrong::GivesNoReason, "row 7 is unreadable without a column of the encoder and a reason"),
        (Wrong::ReadsNothing, "the encoder can read none of the rows"),
        (Wrong::GivesTooFewSimilarities, "there are 1 similarities of pairs for 40 rows"),
        (Wrong::EncodesOtherwise, "`encode` gives row 0 another vector than `encode_readable`"),
        (Wrong::EncodesUnreadableRows, "`encode` does not fail for row 7, which cannot be read"),
        (Wrong::CannotEncodeAlone, "`encode` fails for rows that `encode_readable` can read"),
        (Wrong::ChangesWithEachCall, "row 0 has another vector if it is encoded a second time"),
        (Wrong::DependsOnTheOrder, "row 39 has another vector if it is encoded in reverse order"),
        (Wrong::DependsOnTheBatch, "row 0 has another vector if it is encoded in two parts"),
        (Wrong::DependsOnBeingAlone, "row 0 has another vector if it is encoded alone"),
        (Wrong::ReadsMoreInSmallBatches, "can be read or not, depending on whether it is encoded in two parts"),
        (Wrong::AllowsNoCall, "`calls_at_once` is 0"),
        (Wrong::DependsOnTheThread, "row 0 has another vector if it is encoded beside other calls"),
        (Wrong::ChangesItsIdentity, "name, columns, dimension or identity changed"),
        (Wrong::CannotBeRenewed, "`newer` fails: "),
        (Wrong::GrowsWithTheNextModel, "`newer` gives an encoder of dimension 3 where this one has 2"),
        (Wrong::ReadsOtherColumnsWithTheNextModel, "`newer` reads the columns [\"n\", \"text\"], not [\"n\"]"),
        (Wrong::LosesItsModelFile, "`model_files` lacks `model_file`"),
    ] {
        let broken = contract::check(&WrongEncoder::new(wrong), &rows(40), 0.0);
        assert_says(&broken.expect_err(&format!("{wrong:?} is not found")), &[expected]);
    }
    let structs =
        StructArray::from(vec![(Arc::new(Field::new("path", DataType::UInt32, false)), rows(40)["n"].clone())]);
    let structs = RecordBatch::try_from_iter([("n", Arc::new(structs) as ArrayRef)]).unwrap();
    let unknown = contract::check(&WrongEncoder::new(Wrong::ReadsAnUnknownField), &structs, 0.0);
    assert_says(&unknown.unwrap_err(), &["`field` names `bytes`, which column `n` does not have"]);
    let lacking = contract::check(&WrongEncoder::new(Wrong::AllowsNoCall), &rows(40).project(&[1]).unwrap(), 0.0);
    assert_says(&lacking.unwrap_err(), &["the rows lack a column of the encoder"]);
    let none = contract::check(&WrongEncoder::new(Wrong::AllowsNoCall), &rows(0), 0.0);
    assert_says(&none.unwrap_err(), &["there is no row without a null"]);
}
