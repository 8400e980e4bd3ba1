//! A decoded picture: a reference to the decoder's buffer, converted only when asked.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer_video as gst_video;
use gstreamer_video::{VideoFormat, prelude::*};

use super::{
    VideoLimits,
    convert::{self, Component, Matrix, Range},
    graph::Shared,
    memory,
    orient::Orientation,
    planes::{Plane, Planes},
};
use crate::{
    error::{Error, Kind, Result, ResultExt as _},
    limits::FRAME_DURATION_MIN_MICROS,
    media::{Picture, RgbImage, RgbRows},
};

/// What all pictures between two changes of caps share.
#[derive(Debug)]
pub(crate) struct PictureFormat {
    info: gst_video::VideoInfo,
    matrix: Matrix,
    range: Range,
    orientation: Orientation,
}

impl PictureFormat {
    /// From the decoder's caps. `colors` is what is said about them, in GStreamer's notation, the
    /// most trusted first: the bitstream, then the container.
    ///
    /// # Errors
    /// `InvalidArgument` for a pixel format that is not converted here.
    pub(crate) fn new(
        caps: &gst::CapsRef,
        colors: &[Option<&str>],
        jfif: bool,
        orientation: Orientation,
    ) -> Result<Self> {
        let info = gst_video::VideoInfo::from_caps(caps).or_kind(Kind::Internal, || {
            format!("the decoder gave caps that are no picture: {caps}")
        })?;
        if !supported(info.format()) {
            return Err(Error::invalid(format!(
                "the pixel format {} is not supported",
                info.format()
            )));
        }
        let said: Vec<gst_video::VideoColorimetry> = colors
            .iter()
            .filter_map(|c| c.and_then(|c| c.parse().ok()))
            .collect();
        let matrix = said.iter().find_map(|c| match c.matrix() {
            gst_video::VideoColorMatrix::Bt601 => Some(Matrix::Bt601),
            gst_video::VideoColorMatrix::Bt709 => Some(Matrix::Bt709),
            gst_video::VideoColorMatrix::Bt2020 => Some(Matrix::Bt2020),
            gst_video::VideoColorMatrix::Fcc => Some(Matrix::Fcc),
            gst_video::VideoColorMatrix::Smpte240m => Some(Matrix::Smpte240m),
            _ => None,
        });
        let range = said.iter().find_map(|c| match c.range() {
            gst_video::VideoColorRange::Range0_255 => Some(Range::Full),
            gst_video::VideoColorRange::Range16_235 => Some(Range::Limited),
            _ => None,
        });
        let matrix = matrix.unwrap_or(if jfif {
            Matrix::Bt601
        } else {
            Matrix::unspecified(info.height())
        });
        let range = range.unwrap_or(if jfif || info.is_rgb() {
            Range::Full
        } else {
            Range::Limited
        });
        Ok(PictureFormat {
            info,
            matrix,
            range,
            orientation,
        })
    }

    /// Size as stored, before it is turned upright.
    pub(crate) fn stored_size(&self) -> (u32, u32) {
        (self.info.width(), self.info.height())
    }

    /// Size of the upright picture.
    pub(crate) fn size(&self) -> (u32, u32) {
        self.orientation.size(self.info.width(), self.info.height())
    }

    /// Frames per second, if the caps say.
    pub(crate) fn fps(&self) -> Option<f64> {
        let fps = self.info.fps();
        (fps.numer() > 0 && fps.denom() > 0)
            .then(|| f64::from(fps.numer()) / f64::from(fps.denom()))
            // A decoder that knows no rate may make one up from the clock's resolution.
            .filter(|fps| fps * FRAME_DURATION_MIN_MICROS as f64 <= 1e6)
    }
}

/// The format of the present caps, which rarely change.
#[derive(Debug, Default)]
pub(crate) struct Formats(Option<(gst::Caps, Arc<PictureFormat>)>);

impl Formats {
    /// The picture format of these caps of a pipeline's decoder.
    ///
    /// # Errors
    /// As [`PictureFormat::new`], and `InvalidArgument` for frames over the limits.
    pub(crate) fn of(
        &mut self,
        caps: &gst::CapsRef,
        shared: &Shared,
        limits: &VideoLimits,
    ) -> Result<Arc<PictureFormat>> {
        if let Some((known, format)) = &self.0
            && (std::ptr::eq(known.as_ref(), caps) || known.as_ref() == caps)
        {
            return Ok(Arc::clone(format));
        }
        let state = shared.state();
        let own = caps
            .structure(0)
            .and_then(|s| s.get::<String>("colorimetry").ok());
        let of_stream = if state.honest_colors {
            own.as_deref()
        } else {
            state.input_colors.as_deref()
        };
        let colors = [of_stream, state.container_colors.as_deref()];
        let jfif = state.codec.is_some_and(|c| c.jfif);
        let format = PictureFormat::new(caps, &colors, jfif, state.orientation)?;
        drop(state);
        let (width, height) = format.stored_size();
        limits.check_size(width, height)?;
        let format = Arc::new(format);
        self.0 = Some((caps.to_owned(), Arc::clone(&format)));
        Ok(format)
    }
}

/// Formats whose components all are whole bytes or little-endian 16-bit words.
fn supported(format: VideoFormat) -> bool {
    use VideoFormat as F;
    matches!(
        format,
        F::I420
            | F::Yv12
            | F::Y41b
            | F::Y42b
            | F::Y444
            | F::Nv12
            | F::Nv21
            | F::Nv16
            | F::Nv61
            | F::Nv24
            | F::Yuy2
            | F::Yvyu
            | F::Uyvy
            | F::I42010le
            | F::I42012le
            | F::I42210le
            | F::I42212le
            | F::Y44410le
            | F::Y44412le
            | F::Y44416le
            | F::P01010le
            | F::P012Le
            | F::P016Le
            | F::Gray8
            | F::Gray16Le
            | F::Rgb
            | F::Bgr
            | F::Rgbx
            | F::Bgrx
            | F::Xrgb
            | F::Xbgr
            | F::Rgba
            | F::Bgra
            | F::Argb
            | F::Abgr
            | F::Gbr
            | F::Gbr10le
            | F::Gbr12le
            | F::Gbra
    )
}

/// One decoded picture.
pub(crate) struct GstPicture {
    buffer: gst::Buffer,
    format: Arc<PictureFormat>,
}

impl GstPicture {
    pub(crate) fn new(buffer: gst::Buffer, format: Arc<PictureFormat>) -> Self {
        GstPicture { buffer, format }
    }
}

impl GstPicture {
    /// Gives the rows as stored, before they are turned upright.
    fn stored_rows(&self, give: &mut dyn FnMut(&[u8])) -> Result<()> {
        let PictureFormat { matrix, range, .. } = *self.format;
        let (width, height) = self.format.stored_size();
        let (width, height) = (width as usize, height as usize);
        self.with_components(|layout, parts| {
            if layout.is_gray() || layout.is_rgb() {
                convert::rgb_to_rgb(width, height, parts, range, give)
            } else {
                convert::yuv_to_rgb(width, height, parts, matrix, range, give)
            }
        })
    }

    /// Where it lies for another process and how, if it does, is upright as it is stored, and has planes that are read
    /// there.
    pub(crate) fn laid(&self) -> Option<(u64, Planes)> {
        let at = memory::place(&self.buffer)?;
        let format = &*self.format;
        let order = match format.info.format() {
            VideoFormat::I420 => [0, 1, 2],
            VideoFormat::Yv12 => [0, 2, 1],
            _ => return None,
        };
        let meta = self.buffer.meta::<gst_video::VideoMeta>();
        let (offsets, strides) = match &meta {
            Some(meta) => (meta.offset(), meta.stride()),
            None => (format.info.offset(), format.info.stride()),
        };
        let plane = |i: usize| {
            Some(Plane {
                at: *offsets.get(i)?,
                stride: usize::try_from(*strides.get(i)?).ok()?,
            })
        };
        let [y, cb, cr] = order.map(plane);
        let (width, height) = format.stored_size();
        let planes = Planes {
            width,
            height,
            matrix: format.matrix,
            range: format.range,
            planes: [y?, cb?, cr?],
        };
        let upright = format.orientation == Orientation::default();
        let whole = planes.bytes()? <= self.buffer.size();
        (upright && whole && at.is_multiple_of(8)).then_some((at, planes))
    }

    /// Calls `with` with its three components, or three times its one.
    fn with_components<T>(
        &self,
        with: impl FnOnce(&gst_video::VideoFormatInfo, [Component<'_>; 3]) -> Result<T>,
    ) -> Result<T> {
        let format = &*self.format;
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(&self.buffer, &format.info)
            .or_kind(Kind::Internal, || {
                "a decoded picture cannot be read".to_owned()
            })?;
        let layout = frame.format_info();
        let component = |c: usize| -> Option<Component<'_>> {
            let plane = *layout.plane().get(c)?;
            let offset = usize::try_from(*layout.poffset().get(c)?).ok()?;
            Some(Component {
                data: frame.plane_data(plane).ok()?.get(offset..)?,
                stride: usize::try_from(*frame.plane_stride().get(plane as usize)?).ok()?,
                step: usize::try_from(*layout.pixel_stride().get(c)?).ok()?,
                depth: *layout.depth().get(c)?,
                shift: *layout.shift().get(c)?,
                w_sub: *layout.w_sub().get(c)?,
                h_sub: *layout.h_sub().get(c)?,
            })
        };
        let component = |c: usize| {
            component(c).ok_or_else(|| Error::internal("a decoded picture lacks one of its planes"))
        };
        let parts = if layout.is_gray() {
            [component(0)?; 3]
        } else {
            [component(0)?, component(1)?, component(2)?]
        };
        with(&layout, parts)
    }
}

impl Picture for GstPicture {
    fn to_rgb(&self) -> Result<RgbImage> {
        let (width, height) = self.format.stored_size();
        // Appended row by row: memory that was cleared first would be written twice.
        let mut data = Vec::with_capacity(width as usize * height as usize * 3);
        self.stored_rows(&mut |rows| data.extend_from_slice(rows))?;
        Ok(self.format.orientation.apply(RgbImage {
            width,
            height,
            data,
        }))
    }

    fn as_rows(&self) -> Option<&dyn RgbRows> {
        (self.format.orientation == Orientation::default()).then_some(self)
    }

    fn size_bytes(&self) -> usize {
        self.buffer.maxsize()
    }
}

/// Of a picture that is upright as it is stored.
impl RgbRows for GstPicture {
    fn size(&self) -> (u32, u32) {
        self.format.stored_size()
    }

    fn rows(&self, give: &mut dyn FnMut(&[u8])) -> Result<()> {
        self.stored_rows(give)
    }
}
