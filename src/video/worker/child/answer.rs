//! What the process does when it is asked.

use std::{
    io::BufReader,
    os::unix::net::UnixStream,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{Shared, give::Gathered, gone, locked, reducers::Reducers};
use crate::{
    error::{Error, Result},
    limits::WORKER_HEADER_MAX_BYTES,
    media::{MediaTime, Picture, Reduce, Reduced},
    rtsp::Packet,
    video::{
        live::{Decoding as _, Placed},
        worker::wire::{self, Answer, Fault, FromWorker, PacketHead, ToWorker},
    },
};

/// Largest body of a message from the server, bytes: an RTP packet.
const PACKET_MAX_BYTES: usize = 1 << 20;

/// Does what the server asks for, until it hangs up.
pub(super) fn listen(
    mut from: BufReader<UnixStream>,
    shared: &Arc<Shared>,
    reduce: Reduce,
    mut reducers: Reducers,
) {
    let reduce: Arc<Reduce> = Arc::new(reduce);
    let mut answers = Gathered::default();
    loop {
        // Who waits is woken up once for what was asked for together.
        if !wire::is_whole(from.buffer()) || answers.patience().is_none() {
            answers.give(shared);
        }
        let Ok(Some((message, body))) =
            wire::read::<ToWorker>(&mut from, WORKER_HEADER_MAX_BYTES, |_| PACKET_MAX_BYTES)
        else {
            gone();
        };
        match message {
            ToWorker::Begin(_) => gone(),
            ToWorker::More(frames) => {
                let mut credit = locked(&shared.credit);
                *credit = credit.saturating_add(frames);
                drop(credit);
                shared.granted.notify_all();
            }
            ToWorker::Release(ids) => {
                let mut pictures = locked(&shared.pictures);
                let released: Vec<_> = ids
                    .iter()
                    .filter_map(|id| pictures.held.remove(id))
                    .collect();
                // What a picture's memory goes back to has locks of its own.
                drop(pictures);
                drop(released);
            }
            ToWorker::Rgb { ticket, picture } => answer(&mut answers, ticket, || {
                let rgb = find(shared, picture)?.to_rgb()?;
                let (width, height) = (rgb.width, rgb.height);
                Ok((Answer::Rgb { width, height }, rgb.data))
            }),
            ToWorker::Reduce {
                ticket,
                picture,
                how,
                place,
            } => {
                // Found now: it may be released before it is made, if nobody wants it any more.
                let picture = find(shared, picture);
                let make = {
                    let (shared, reduce) = (Arc::clone(shared), Arc::clone(&reduce));
                    move || {
                        let picture = picture?;
                        let draw = |on: &mut [u8]| reduce(picture.as_ref(), &how, on);
                        lay_reduced(&shared, place, how.bytes(), draw)
                    }
                };
                let Some(jobs) = reducers.started() else {
                    answer(&mut answers, ticket, make);
                    continue;
                };
                let shared = Arc::clone(shared);
                let job = move || {
                    let mut alone = Gathered::default();
                    answer(&mut alone, ticket, make);
                    alone.give(&shared);
                };
                if jobs.send(Box::new(job)).is_err() {
                    gone();
                }
            }
            ToWorker::Packet(head) => packet(shared, &head, body),
            ToWorker::NoMorePackets => {
                if let Some(camera) = &mut *locked(&shared.camera) {
                    camera.connection.end();
                }
            }
        }
    }
}

/// Has the pixels drawn in the shared memory, or into the answer's body where there is no place: where files may
/// not grow there is none.
fn lay_reduced(
    shared: &Shared,
    place: Option<u64>,
    pixels: usize,
    draw: impl Fn(&mut [u8]) -> Result<Reduced<()>>,
) -> Result<(Answer, Vec<u8>)> {
    let mut body = Vec::new();
    let on_canvas = place.and_then(|place| shared.canvas.draw(place, pixels, &draw));
    let laid = on_canvas.is_some();
    let reduced = match on_canvas {
        Some(reduced) => reduced?,
        None => {
            body.resize(pixels, 0);
            draw(&mut body)?
        }
    };
    body.extend_from_slice(reduced.jpeg.as_deref().unwrap_or_default());
    let told = Answer::Reduced {
        upright: reduced.upright,
        pixels,
        laid,
    };
    Ok((told, body))
}

fn find(shared: &Shared, id: u64) -> Result<Arc<dyn Picture>> {
    let pictures = locked(&shared.pictures);
    let found = pictures.held.get(&id).cloned();
    found.ok_or_else(|| Error::internal(format!("the decoder process has no picture {id}")))
}

fn answer(answers: &mut Gathered, ticket: u64, make: impl FnOnce() -> Result<(Answer, Vec<u8>)>) {
    let made = catch_unwind(AssertUnwindSafe(make))
        .unwrap_or_else(|_| Err(Error::internal("the decoder process panicked on a picture")));
    let (answer, body) =
        made.unwrap_or_else(|error| (Answer::NoPicture(Fault::from(&error)), Vec::new()));
    answers.add(&FromWorker::Answer { ticket, answer }, &body);
}

fn packet(shared: &Shared, head: &PacketHead, data: Vec<u8>) {
    if let Some(camera) = &mut *locked(&shared.camera) {
        camera.given += data.len() as u64;
        let placed = Placed {
            pts: MediaTime::from_nanos(head.pts),
            jumped: head.jumped,
        };
        let packet = Packet {
            data: data.into(),
            // The server has placed it already.
            ticks: 0,
            lost: head.lost,
            arrived: head.arrived,
        };
        camera.connection.push(&packet, placed);
    }
}
