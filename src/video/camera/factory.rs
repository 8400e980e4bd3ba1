//! What makes a camera's stream when somebody comes to watch it.

use gstreamer as gst;
use gstreamer::glib;
use gstreamer_app as gst_app;
use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::{gst_rtsp, prelude::*};

use super::{
    FileOptions, Protocols,
    feed::Feed,
    reader::{Clip, Payload},
    wire,
};

/// Who has passed whatever is asked of clients.
pub(super) const ROLE: &str = "viewer";

mod one {
    //! A factory that has one stream, by whatever name clients ask for it. The library's own
    //! makes another one for every port in a URL, which differs behind a proxy.

    use gstreamer::glib;
    use gstreamer_rtsp_server::{gst_rtsp, subclass::prelude::*};

    #[derive(Default)]
    pub struct CameraFactory;

    #[glib::object_subclass]
    impl ObjectSubclass for CameraFactory {
        const NAME: &'static str = "HeadhuntCameraFactory";
        type Type = super::CameraFactory;
        type ParentType = gstreamer_rtsp_server::RTSPMediaFactory;
    }

    impl ObjectImpl for CameraFactory {}

    impl RTSPMediaFactoryImpl for CameraFactory {
        fn gen_key(&self, _: &gst_rtsp::RTSPUrl) -> Option<glib::GString> {
            Some("camera".into())
        }
    }
}

glib::wrapper! {
    /// See [`one`].
    pub struct CameraFactory(ObjectSubclass<one::CameraFactory>)
        @extends rtsp::RTSPMediaFactory;
}

impl CameraFactory {
    /// Streams `clip` as `options` have it.
    pub(super) fn new(options: &FileOptions, clip: Clip, payload: Payload) -> Self {
        let factory: Self = glib::Object::new();
        let payloader = payload.payloader();
        factory.set_launch(&format!("( appsrc name=source ! {payloader} name=pay0 )"));
        factory.set_shared(true);
        factory.set_protocols(match options.protocols {
            Protocols::Any => gst_rtsp::RTSPLowerTrans::TCP | gst_rtsp::RTSPLowerTrans::UDP,
            Protocols::Tcp => gst_rtsp::RTSPLowerTrans::TCP,
            Protocols::Udp => gst_rtsp::RTSPLowerTrans::UDP,
        });
        let role = gst::Structure::builder(ROLE)
            .field(rtsp::RTSP_PERM_MEDIA_FACTORY_ACCESS.as_str(), true)
            .field(rtsp::RTSP_PERM_MEDIA_FACTORY_CONSTRUCT.as_str(), true)
            .build();
        factory.add_role_from_structure(&role);
        let (loss, rate) = (options.loss, options.frame_rate_claim);
        factory.connect_media_configure(move |_, media| {
            let Ok(bin) = media.element().downcast::<gst::Bin>() else {
                return tracing::error!("a camera's stream is no bin");
            };
            if let Some(pad) = bin.by_name("pay0").and_then(|pay| pay.static_pad("src")) {
                if let Some(loss) = loss {
                    wire::lose(&pad, loss);
                }
                if let Some(rate) = rate {
                    wire::claim(&pad, rate);
                }
            }
            if let Some(source) = bin
                .by_name("source")
                .and_then(|source| source.downcast::<gst_app::AppSrc>().ok())
            {
                Feed::new(clip.clone()).attach(&source);
            }
        });
        factory
    }
}
