//! A picture in a decoder process: in the memory that it shares, where it was decoded, or in its own.

use std::sync::{Arc, Mutex, PoisonError};

use super::{
    inbox::Ticket,
    process::Process,
    wire::{Answer, Fault, Laid},
};
use crate::{
    error::{Error, Kind, Result},
    limits::{FRAME_MAX_SIDE, WORKER_PICTURE_MAX_BYTES},
    media::{Picture, Reduced, Reduction, RgbImage, RgbRows, rgb_bytes},
    video::planes::Planes,
};

/// How the pictures of a process lie in the shared memory: it says so where that changes.
#[derive(Default)]
pub(super) struct Layout(Option<Planes>);

impl Layout {
    /// Where and how a picture lies, as the process says.
    ///
    /// Fails where no picture can lie there.
    pub(super) fn of(
        &mut self,
        laid: Option<Laid>,
        process: &Process,
    ) -> std::result::Result<Option<(u64, Planes)>, &'static str> {
        let Some(laid) = laid else {
            return Ok(None);
        };
        let lost = "it laid a picture where there is no room for it";
        let planes = laid.planes.or(self.0).ok_or(lost)?;
        let sides = planes.width.max(planes.height) <= FRAME_MAX_SIDE;
        let fits = |bytes: &usize| sides && *bytes <= WORKER_PICTURE_MAX_BYTES;
        let bytes = planes.bytes().filter(fits);
        if !laid.at.is_multiple_of(8) || !process.has_room(laid.at, bytes.ok_or(lost)?) {
            return Err(lost);
        }
        self.0 = Some(planes);
        Ok(Some((laid.at, planes)))
    }
}

/// A picture that a decoder process holds until this is dropped.
pub(super) struct RemotePicture {
    process: Arc<Process>,
    id: u64,
    size_bytes: usize,
    /// Where it lies in the shared memory, if it does.
    laid: Option<(u64, Planes)>,
    /// What was asked for ahead.
    asked: Mutex<Option<(Reduction, Ticket)>>,
}

impl RemotePicture {
    pub(super) fn new(
        process: &Arc<Process>,
        id: u64,
        size_bytes: usize,
        laid: Option<(u64, Planes)>,
    ) -> Self {
        RemotePicture {
            process: Arc::clone(process),
            id,
            size_bytes,
            laid,
            asked: Mutex::new(None),
        }
    }

    fn strange(&self) -> Error {
        let what = "it sent another picture than was asked for";
        Error::data_loss(self.process.broke_protocol(what).to_string())
    }

    /// What came of a question, and whether its place may be used again.
    fn made(&self, how: &Reduction, ticket: Ticket, came: (Answer, Vec<u8>)) -> Result<Reduced> {
        let (answer, body) = came;
        let fetched = match answer {
            Answer::NoPicture(fault) => Err(none(fault)),
            Answer::Rgb { .. } => Err(self.strange()),
            Answer::Reduced { pixels, .. } if pixels != how.bytes() => Err(self.strange()),
            Answer::Reduced { upright, laid, .. } => {
                let laid = ticket.place.filter(|_| laid);
                self.reduced(how, laid, &body, upright)
            }
        };
        self.process.done(&ticket, true);
        fetched
    }

    /// A reduced picture, its pixels at a place or in the answer's body.
    fn reduced(
        &self,
        how: &Reduction,
        place: Option<u64>,
        body: &[u8],
        upright: (u32, u32),
    ) -> Result<Reduced> {
        let (pixels, jpeg) = match place {
            Some(place) => (self.process.pixels(place, how.bytes())?, body),
            None => {
                let (pixels, jpeg) = body
                    .split_at_checked(how.bytes())
                    .ok_or_else(|| self.strange())?;
                (pixels.into(), jpeg)
            }
        };
        if jpeg.len() > how.snapshot.map_or(0, |rules| rules.max_bytes) {
            return Err(self.strange());
        }
        Ok(Reduced {
            pixels,
            upright,
            jpeg: (!jpeg.is_empty()).then(|| jpeg.into()),
        })
    }

    fn asked(&self) -> Option<(Reduction, Ticket)> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// Why there is no picture. One that the process fails at is lost; the media goes on.
fn none(fault: Fault) -> Error {
    let error = Error::from(fault);
    match error.kind() {
        Kind::Internal | Kind::ResourceExhausted => {
            Error::data_loss(format!("a picture could not be made: {error:#}"))
        }
        _ => error,
    }
}

impl Picture for RemotePicture {
    fn to_rgb(&self) -> Result<RgbImage> {
        if self.laid.is_some() {
            let (width, height) = self.size();
            let mut data = Vec::with_capacity(rgb_bytes((width, height)));
            self.rows(&mut |rows| data.extend_from_slice(rows))?;
            return Ok(RgbImage {
                width,
                height,
                data,
            });
        }
        let ticket = self.process.ask_rgb(self.id);
        let answer = self.process.answer(&ticket);
        self.process.done(&ticket, answer.is_ok());
        match answer? {
            (Answer::Rgb { width, height }, data) if data.len() == rgb_bytes((width, height)) => {
                Ok(RgbImage {
                    width,
                    height,
                    data,
                })
            }
            (Answer::NoPicture(fault), _) => Err(none(fault)),
            _ => Err(self.strange()),
        }
    }

    fn as_rows(&self) -> Option<&dyn RgbRows> {
        self.laid.is_some().then_some(self)
    }

    fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    fn will_reduce(&self, how: &Reduction) {
        if self.laid.is_some() {
            return;
        }
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.is_none() {
            let ticket = self.process.ask_reduced(self.id, how, true);
            *asked = ticket.map(|ticket| (how.clone(), ticket));
        }
    }

    fn fetch(&self, how: &Reduction) -> Option<Result<Reduced>> {
        // It can be read as if it lay here.
        if self.laid.is_some() {
            return None;
        }
        let ticket = match self.asked() {
            Some((asked, ticket)) if asked == *how => Some(ticket),
            Some((_, ticket)) => {
                self.process.done(&ticket, false);
                None
            }
            None => None,
        };
        // With no place free the pixels come through the socket, so one always comes.
        let ticket = ticket.or_else(|| self.process.ask_reduced(self.id, how, false))?;
        Some(match self.process.answer(&ticket) {
            Ok(came) => self.made(how, ticket, came),
            Err(e) => {
                // The process may still write at its place.
                self.process.done(&ticket, false);
                Err(e)
            }
        })
    }
}

/// Of a picture in the shared memory.
impl RgbRows for RemotePicture {
    fn size(&self) -> (u32, u32) {
        self.laid
            .map_or((0, 0), |(_, planes)| (planes.width, planes.height))
    }

    fn rows(&self, give: &mut dyn FnMut(&[u8])) -> Result<()> {
        let Some((first, planes)) = self.laid else {
            return Err(Error::internal("a picture that lies elsewhere has no rows"));
        };
        let read = |at: usize, to: &mut [u8]| self.process.piece(first + at as u64, to);
        planes.rows(read, give)
    }
}

impl Drop for RemotePicture {
    fn drop(&mut self) {
        if let Some((_, ticket)) = self.asked() {
            self.process.done(&ticket, false);
        }
        self.process.release(self.id);
    }
}
