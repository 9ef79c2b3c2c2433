//! Mini-batches to one client.

use std::time::Duration;

use arrow_flight::FlightData;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::frames::{frame, schema_frame, share};
use super::job::{Held, Seat};
use super::messages::Credits;
use super::options::ServeOptions;
use super::service::within;

type Frames = BoxStream<'static, Result<FlightData, Status>>;

/// All mini-batches, as fast as the client reads.
pub(super) fn all(mut seat: Seat, options: ServeOptions) -> Frames {
    frames(seat.ended(), move |tx| async move {
        send(&tx, schema_frame(&seat.schema, &seat.hello)?, &options).await?;
        while let Some(held) = seat.next().await? {
            seat.send(&held, &tx, &options).await?;
            seat.taken(held.state.step).await?;
        }
        Ok(())
    })
}

/// As many mini-batches as the client gives credits for.
pub(super) fn by_credits(
    mut seat: Seat,
    mut messages: Streaming<FlightData>,
    first: Credits,
    options: ServeOptions,
) -> Frames {
    frames(seat.ended(), move |tx| async move {
        send(&tx, schema_frame(&seat.schema, &seat.hello)?, &options).await?;
        let mut credit = first.credits;
        loop {
            // A client that has given credits waits for the server, and need not say anything.
            let patience = if credit == 0 { options.max_idle } else { Duration::MAX };
            let next = async { if credit == 0 { std::future::pending().await } else { seat.next().await } };
            tokio::select! {
                // A message may end the exchange, so it comes first.
                biased;
                message = within(patience, messages.message()) => {
                    let Some(message) = message?? else { return Ok(()) };
                    credit = seat.accept(&message.app_metadata, credit).await?;
                }
                held = next => {
                    let Some(held) = held? else { return Ok(()) };
                    seat.send(&held, &tx, &options).await?;
                    credit -= 1;
                }
            }
        }
    })
}

/// Credits in the metadata of a message; none in an empty one.
pub(super) fn credits(metadata: &[u8]) -> Result<Credits, Status> {
    if metadata.is_empty() {
        return Ok(Credits::default());
    }
    let wrong = |error| Status::invalid_argument(format!("credits are wrong: {error}"));
    serde_json::from_slice(metadata).map_err(wrong)
}

impl Seat {
    /// Takes a client's message: more credits, and what its trainer has taken.
    async fn accept(&self, metadata: &[u8], credit: u64) -> Result<u64, Status> {
        let Credits { credits, taken } = credits(metadata)?;
        if taken > 0 {
            self.taken(taken).await?;
        }
        Ok(credit.saturating_add(credits))
    }

    /// Sends this rank's share of a mini-batch.
    async fn send(&mut self, held: &Held, to: &Sender, options: &ServeOptions) -> Result<(), Status> {
        let own = share(&held.mini_batch, self.rank, self.world_size);
        let frame = frame(&own, &held.state, options.max_message_bytes)?;
        send(to, frame, options).await?;
        self.advance();
        Ok(())
    }
}

type Sender = mpsc::Sender<Result<FlightData, Status>>;

/// Sends a message, unless the client does not read for too long.
async fn send(to: &Sender, frame: FlightData, options: &ServeOptions) -> Result<(), Status> {
    let gone = |_| Status::cancelled("the client has gone");
    within(options.max_idle, to.send(Ok(frame))).await?.map_err(gone)
}

/// What a task sends, and the error that it ends with, if it does.
///
/// The task ends when the client goes, or the server ends.
fn frames<F>(
    ended: impl Future<Output = ()> + Send + 'static,
    work: impl FnOnce(Sender) -> F + Send + 'static,
) -> Frames
where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (tx, rx) = mpsc::channel(1);
    let task = tokio::spawn(async move {
        let client = tx.clone();
        let result = tokio::select! {
            result = work(tx) => result,
            () = client.closed() => return,
            () = ended => Err(Status::unavailable("the server ends")),
        };
        if let Err(status) = result {
            // If the client has gone, there is nobody to tell.
            let _ = client.send(Err(status)).await;
        }
    });
    stream::unfold((rx, task), |(mut rx, task)| async move { Some((rx.recv().await?, (rx, task))) }).boxed()
}
