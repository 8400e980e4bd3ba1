//! What the process does when it is asked.

use std::{
    io::BufReader,
    os::unix::net::UnixStream,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{Shared, gone, locked};
use crate::{
    error::{Error, Result},
    limits::WORKER_HEADER_MAX_BYTES,
    media::{MediaTime, Picture, Reduce},
    rtsp::Packet,
    video::{
        live::{Decoding as _, Placed},
        worker::wire::{self, Answer, Fault, FromWorker, PacketHead, ToWorker},
    },
};

/// Largest body of a message from the server, bytes: an RTP packet.
const PACKET_MAX_BYTES: usize = 1 << 20;

/// Does what the server asks for, until it hangs up.
pub(super) fn listen(mut from: BufReader<UnixStream>, shared: &Shared, reduce: &Reduce) {
    loop {
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
            ToWorker::Rgb { ticket, picture } => answer(shared, ticket, || {
                let rgb = find(shared, picture)?.to_rgb()?;
                let (width, height) = (rgb.width, rgb.height);
                Ok((Answer::Rgb { width, height }, rgb.data))
            }),
            ToWorker::Reduce {
                ticket,
                picture,
                how,
                place,
            } => answer(shared, ticket, || {
                let reduced = reduce(find(shared, picture)?.as_ref(), &how)?;
                let jpeg = reduced.jpeg.as_deref().unwrap_or_default();
                // Where files may not grow, shared memory may not either.
                let laid =
                    place.is_some_and(|place| shared.board.write(&reduced.pixels, place).is_ok());
                let told = Answer::Reduced {
                    upright: reduced.upright,
                    pixels: reduced.pixels.len(),
                    laid,
                };
                let body = if laid {
                    jpeg.to_vec()
                } else {
                    [reduced.pixels.as_slice(), jpeg].concat()
                };
                Ok((told, body))
            }),
            ToWorker::Packet(head) => packet(shared, &head, body),
            ToWorker::NoMorePackets => {
                if let Some(camera) = &mut *locked(&shared.camera) {
                    camera.connection.end();
                }
            }
        }
    }
}

fn find(shared: &Shared, id: u64) -> Result<Arc<dyn Picture>> {
    let pictures = locked(&shared.pictures);
    let found = pictures.held.get(&id).cloned();
    found.ok_or_else(|| Error::internal(format!("the decoder process has no picture {id}")))
}

fn answer(shared: &Shared, ticket: u64, make: impl FnOnce() -> Result<(Answer, Vec<u8>)>) {
    let made = catch_unwind(AssertUnwindSafe(make))
        .unwrap_or_else(|_| Err(Error::internal("the decoder process panicked on a picture")));
    let (answer, body) =
        made.unwrap_or_else(|error| (Answer::NoPicture(Fault::from(&error)), Vec::new()));
    shared.send(&FromWorker::Answer { ticket, answer }, &body);
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
