//! Mini-batches to Flight messages, and back.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, Schema, SchemaRef, UInt32Type, UInt64Type};
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_flight::{FlightData, SchemaAsIpc};
use serde::Serialize;
use tonic::Status;

use super::messages::Facts;
use crate::checkpoint::State;
use crate::error::{Error, Result};
use crate::sample::{GraphVersion, ModelVersion, SampleId};
use crate::stream::MiniBatch;

/// The first message: the schema of all record batches, with `hello` beside it.
pub(super) fn schema_frame(rows: &SchemaRef, hello: &impl Serialize) -> Result<FlightData, Status> {
    let schema = MiniBatch::schema(rows);
    let options = IpcWriteOptions::default();
    Ok(FlightData::from(SchemaAsIpc::new(&schema, &options)).with_app_metadata(json(hello)?))
}

/// A mini-batch as one message of at most `most` bytes.
pub(super) fn frame(mini_batch: &MiniBatch, state: &State, most: usize) -> Result<FlightData, Status> {
    let rows = mini_batch.to_record_batch().map_err(|error| Status::internal(error.to_string()))?;
    let facts = Facts {
        step: mini_batch.step,
        is_warm_up: mini_batch.is_warm_up,
        digest: mini_batch.digest,
        counts: mini_batch.counts,
        negatives: mini_batch.negatives.iter().map(|id| id.map(|id| id.0)).collect(),
        state: state.clone(),
    };
    let (options, mut tracker) = (IpcWriteOptions::default(), DictionaryTracker::new(false));
    let (_, encoded) = IpcDataGenerator::default()
        .encode(&rows, &mut tracker, &options, &mut IpcWriteContext::default())
        .map_err(|error| Status::internal(format!("cannot encode a mini-batch: {error}")))?;
    let frame = FlightData::from(encoded).with_app_metadata(json(&facts)?);
    let bytes = frame.data_body.len() + frame.data_header.len() + frame.app_metadata.len();
    if bytes > most {
        return Err(Status::failed_precondition(format!(
            "the mini-batch of step {} has {bytes} bytes, and messages have at most {most}; raise --max-message-bytes, \
             or carry fewer columns (source.columns)",
            mini_batch.step
        )));
    }
    Ok(frame)
}

/// This rank's share of a mini-batch: what the rank gets in process.
pub(super) fn share(whole: &MiniBatch, rank: usize, world_size: usize) -> MiniBatch {
    let share = whole.ids.len() / world_size;
    let count = whole.negatives.len() / whole.ids.len().max(1);
    MiniBatch {
        ids: whole.ids[rank * share..][..share].to_vec(),
        rows: whole.rows.slice(rank * share, share),
        negatives: whole.negatives[rank * share * count..][..share * count].to_vec(),
        ..whole.clone()
    }
}

/// The mini-batch of a record batch and the facts beside it.
pub(super) fn mini_batch(all: &RecordBatch, facts: &Facts) -> Option<MiniBatch> {
    // By place, as `MiniBatch::schema` has them: a column of the rows may have one of these names, too.
    let column = |place: usize| (place < all.num_columns()).then(|| all.column(place));
    let number = |place: usize| {
        let column = column(place)?.as_primitive_opt::<UInt64Type>()?;
        Some((!column.is_empty() && column.is_valid(0)).then(|| column.value(0)))
    };
    let ids = column(0)?.as_primitive_opt::<UInt32Type>()?;
    let similarity = column(6)?.as_primitive_opt::<Float32Type>()?;
    let rows: Vec<usize> = (own_columns()..all.num_columns()).collect();
    Some(MiniBatch {
        ids: ids.values().iter().map(|&id| SampleId(id)).collect(),
        rows: all.project(&rows).ok()?,
        negatives: facts.negatives.iter().map(|id| id.map(SampleId)).collect(),
        epoch: number(1)??,
        step: facts.step,
        model_version: number(3)?.map(ModelVersion),
        graph_version: number(4)?.map(GraphVersion),
        staleness: number(5)?,
        similarity: (!similarity.is_empty() && similarity.is_valid(0)).then(|| similarity.value(0)),
        is_warm_up: facts.is_warm_up,
        feedback: None,
        digest: facts.digest,
        counts: facts.counts,
    })
}

/// The columns of the rows in a schema of mini-batches.
pub(super) fn row_schema(all: &SchemaRef) -> SchemaRef {
    Arc::new(Schema::new(all.fields().iter().skip(own_columns()).cloned().collect::<Vec<_>>()))
}

/// How many columns come before those of the rows.
fn own_columns() -> usize {
    MiniBatch::schema(&Schema::empty()).fields().len()
}

pub(super) fn json(value: &impl Serialize) -> Result<Vec<u8>, Status> {
    serde_json::to_vec(value).map_err(|error| Status::internal(format!("cannot write JSON: {error}")))
}

/// An error of this crate as what a client is told: nothing that a client may retry.
pub(super) fn status(error: &Error) -> Status {
    Status::failed_precondition(error.to_string())
}
