//! What the contract has and this version of the pipeline has not yet.

use super::Request;
use crate::error::{Error, Result};

/// Refuses options whose work is not there, by field, before anything else looks at them.
pub(super) fn refuse(request: &Request) -> Result<()> {
    let missing = |field: &str| {
        Err(Error::unimplemented(format!("{field} is not part of this version")).with_field(field))
    };
    if let Request::Hunt { options } | Request::Calibrate { options, .. } = request {
        if options.auto_top_k {
            return missing("options.auto_top_k");
        }
        if options.validation_fraction != 0.0 {
            return missing("options.validation_fraction");
        }
    }
    if let Request::Calibrate {
        keep_heads,
        include_feedback,
        normal_only,
        ..
    } = request
    {
        if *keep_heads {
            return missing("keep_heads");
        }
        if *include_feedback {
            return missing("include_feedback");
        }
        if normal_only.is_some() {
            return missing("normal_only");
        }
    }
    Ok(())
}
