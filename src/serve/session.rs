//! One exchange with the server: credits go there, mini-batches come back.

use arrow::datatypes::SchemaRef;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::{FlightData, FlightDescriptor};
use futures::{TryStreamExt, stream};
use tokio::sync::mpsc;
use tonic::Status;

use super::frames::mini_batch;
use super::messages::{Credits, Facts, Hello, Ticket};
use super::remote_handle::{RemoteHandle, answer};
use crate::checkpoint::State;
use crate::stream::MiniBatch;

/// An open exchange.
pub(super) struct Session {
    frames: FlightDataDecoder,
    credits: mpsc::UnboundedSender<FlightData>,
    pub hello: Hello,
    pub schema: SchemaRef,
}

impl Session {
    /// Takes a place, with the first credits. A server that still embeds is waited for as long as it is there.
    pub async fn open(handle: &RemoteHandle, ticket: &Ticket, credits: u64, taken: u64) -> Result<Self, Status> {
        let internal = |error: serde_json::Error| Status::invalid_argument(error.to_string());
        let command = serde_json::to_vec(ticket).map_err(internal)?;
        let first = FlightData::new()
            .with_descriptor(FlightDescriptor::new_cmd(command))
            .with_app_metadata(serde_json::to_vec(&Credits { credits, taken }).map_err(internal)?);
        let (tx, rx) = mpsc::unbounded_channel();
        // The receiver is below.
        let _ = tx.send(first);
        let messages = stream::unfold(rx, |mut rx| async { Some((rx.recv().await?, rx)) });
        let exchange = async { handle.client().do_exchange(handle.request(messages)).await };
        let frames = answer(&handle.uri, exchange).await?.into_inner();
        let mut frames = FlightDataDecoder::new(frames.map_err(FlightError::from));
        let Some(first) = frames.try_next().await.map_err(status)? else {
            return Err(Status::unavailable("the server sent nothing"));
        };
        let hello = serde_json::from_slice(&first.app_metadata()).map_err(internal)?;
        let DecodedPayload::Schema(schema) = first.payload else {
            return Err(Status::invalid_argument("the server's first message is no schema; is it a prosampler?"));
        };
        Ok(Self { frames, credits: tx, hello, schema })
    }

    pub fn give(&self, credits: Credits) {
        // This never fails: two numbers.
        let Ok(text) = serde_json::to_vec(&credits) else { return };
        // If the exchange has ended, the next message says so.
        let _ = self.credits.send(FlightData::new().with_app_metadata(text));
    }

    /// The next mini-batch, and the state after it.
    pub async fn next(&mut self) -> Result<Option<(MiniBatch, State)>, Status> {
        let Some(frame) = self.frames.try_next().await.map_err(status)? else { return Ok(None) };
        let wrong = || Status::invalid_argument("the server sent a message that is no mini-batch");
        let facts: Facts = serde_json::from_slice(&frame.app_metadata()).map_err(|_| wrong())?;
        let DecodedPayload::RecordBatch(rows) = frame.payload else { return Err(wrong()) };
        let mini_batch = mini_batch(&rows, &facts).ok_or_else(wrong)?;
        Ok(Some((mini_batch, facts.state)))
    }
}

fn status(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        other => Status::invalid_argument(other.to_string()),
    }
}
