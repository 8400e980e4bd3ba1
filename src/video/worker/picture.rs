//! A picture in a decoder process.

use std::sync::{Arc, Mutex, PoisonError};

use super::{
    inbox::Ticket,
    process::Process,
    wire::{Answer, Fault},
};
use crate::{
    error::{Error, Kind, Result},
    limits::FRAME_MAX_SIDE,
    media::{Fetched, Picture, Reduced, Reduction, RgbImage, RgbRows, rgb_bytes},
    video::planes::Planes,
};

/// A picture that a decoder process holds until this is dropped.
pub(super) struct RemotePicture {
    process: Arc<Process>,
    id: u64,
    size_bytes: usize,
    /// What was asked for ahead.
    asked: Mutex<Option<(Reduction, Ticket)>>,
}

impl RemotePicture {
    pub(super) fn new(process: &Arc<Process>, id: u64, size_bytes: usize) -> Self {
        RemotePicture {
            process: Arc::clone(process),
            id,
            size_bytes,
            asked: Mutex::new(None),
        }
    }

    fn strange(&self) -> Error {
        let what = "it sent another picture than was asked for";
        Error::data_loss(self.process.broke_protocol(what).to_string())
    }

    /// What came of a question, and whether its place may be used again.
    fn made(&self, how: &Reduction, ticket: Ticket, came: (Answer, Vec<u8>)) -> Result<Fetched> {
        let (answer, body) = came;
        let fetched = match answer {
            Answer::NoPicture(fault) => Err(none(fault)),
            Answer::Planes(planes) => return self.whole(how, ticket, planes),
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
    ) -> Result<Fetched> {
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
        Ok(Fetched::Reduced(Reduced {
            pixels,
            upright,
            jpeg: (!jpeg.is_empty()).then(|| jpeg.into()),
        }))
    }

    /// A picture that was laid down as it was decoded.
    fn whole(&self, how: &Reduction, ticket: Ticket, planes: Planes) -> Result<Fetched> {
        let laid = LaidPicture {
            process: Arc::clone(&self.process),
            ticket,
            planes,
        };
        let Planes { width, height, .. } = planes;
        let sides = 1..=FRAME_MAX_SIDE;
        let fits = planes.bytes().is_some_and(|bytes| bytes <= how.bytes());
        if !fits
            || !sides.contains(&width)
            || !sides.contains(&height)
            || laid.ticket.place.is_none()
        {
            return Err(self.strange());
        }
        Ok(Fetched::Whole(Box::new(laid)))
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

    fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    fn will_reduce(&self, how: &Reduction) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.is_none() {
            let ticket = self.process.ask_reduced(self.id, how, true);
            *asked = ticket.map(|ticket| (how.clone(), ticket));
        }
    }

    fn fetch(&self, how: &Reduction) -> Option<Result<Fetched>> {
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

impl Drop for RemotePicture {
    fn drop(&mut self) {
        if let Some((_, ticket)) = self.asked() {
            self.process.done(&ticket, false);
        }
        self.process.release(self.id);
    }
}

/// A picture that lies in the memory which a process shares, until this is dropped.
struct LaidPicture {
    process: Arc<Process>,
    ticket: Ticket,
    planes: Planes,
}

impl Picture for LaidPicture {
    fn to_rgb(&self) -> Result<RgbImage> {
        let (width, height) = self.size();
        let mut data = Vec::with_capacity(rgb_bytes((width, height)));
        self.rows(&mut |rows| data.extend_from_slice(rows))?;
        Ok(RgbImage {
            width,
            height,
            data,
        })
    }

    fn as_rows(&self) -> Option<&dyn RgbRows> {
        Some(self)
    }

    fn size_bytes(&self) -> usize {
        self.planes.bytes().unwrap_or(0)
    }
}

impl RgbRows for LaidPicture {
    fn size(&self) -> (u32, u32) {
        (self.planes.width, self.planes.height)
    }

    fn rows(&self, give: &mut dyn FnMut(&[u8])) -> Result<()> {
        let place = self.ticket.place.unwrap_or(u64::MAX);
        let read =
            |at: usize, to: &mut [u8]| self.process.piece(place.saturating_add(at as u64), to);
        self.planes.rows(read, give)
    }
}

impl Drop for LaidPicture {
    fn drop(&mut self) {
        self.process.done(&self.ticket, true);
    }
}
