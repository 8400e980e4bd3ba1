//! A picture in a decoder process.

use std::sync::{Arc, Mutex, PoisonError};

use super::{
    inbox::Ticket,
    process::Process,
    wire::{Answer, Fault},
};
use crate::{
    error::{Error, Kind, Result},
    media::{Picture, Reduced, Reduction, RgbImage},
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

    /// What came of a question.
    fn made(&self, how: &Reduction, ticket: &Ticket, came: (Answer, Vec<u8>)) -> Result<Reduced> {
        let (answer, body) = came;
        let expected = how.side as usize * how.side as usize * 3;
        let (upright, pixels, laid) = match answer {
            Answer::Reduced {
                upright,
                pixels,
                laid,
            } => (upright, pixels, laid),
            Answer::NoPicture(fault) => return Err(none(fault)),
            Answer::Rgb { .. } => return Err(self.strange()),
        };
        if pixels != expected {
            return Err(self.strange());
        }
        let (pixels, jpeg) = match ticket.place.filter(|_| laid) {
            Some(place) => (self.process.pixels(place, pixels)?, &*body),
            None => {
                let (pixels, jpeg) = body
                    .split_at_checked(pixels)
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
        let ticket = self.process.ask_rgb(self.id);
        let answer = self.process.answer(&ticket);
        self.process.done(&ticket, answer.is_ok());
        match answer? {
            (Answer::Rgb { width, height }, data)
                if data.len() as u64 == u64::from(width) * u64::from(height) * 3 =>
            {
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

    fn reduced(&self, how: &Reduction) -> Option<Result<Reduced>> {
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
        let answer = self.process.answer(&ticket);
        // Who was not answered leaves the place to the process, which may still write there.
        let answered = answer.is_ok();
        let reduced = answer.and_then(|came| self.made(how, &ticket, came));
        self.process.done(&ticket, answered);
        Some(reduced)
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
