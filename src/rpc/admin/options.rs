//! Options of hunts, checked field by field.

use super::super::proto::{self, segment_rule::Rule};
use crate::{
    error::{Error, Result},
    jobs::{HuntSettings, NormalOnly},
    limits,
    pipeline::labelled::SamplingUnit,
    segment::SegmentRule,
};

/// Settings of a hunt; what needs the model's shape or the clips' labels is checked later.
///
/// Fails with `InvalidArgument` and the field.
pub(super) fn hunt(options: Option<proto::HuntOptions>) -> Result<HuntSettings> {
    let options = options.unwrap_or_default();
    let mut settings = HuntSettings {
        seed: options.seed,
        auto_top_k: options.auto_top_k,
        validation_fraction: options.validation_fraction,
        ..HuntSettings::default()
    };
    if options.prompts.len() > limits::PROMPTS_MAX {
        return wrong(
            "options.prompts",
            format!(
                "{} prompts; at most {} are taken",
                options.prompts.len(),
                limits::PROMPTS_MAX
            ),
        );
    }
    for (number, prompt) in options.prompts.iter().enumerate() {
        let field = format!("options.prompts[{number}]");
        if prompt.trim().is_empty() || prompt.len() > limits::PROMPT_MAX_BYTES {
            return wrong(
                &field,
                format!(
                    "a prompt has {} bytes: 1 to {} are possible, and not only spaces",
                    prompt.len(),
                    limits::PROMPT_MAX_BYTES
                ),
            );
        }
        if options.prompts.iter().take(number).any(|p| p == prompt) {
            return wrong(&field, "this prompt is given twice".into());
        }
    }
    if !options.prompts.is_empty() {
        settings.prompts = options.prompts;
    }
    if options.auto_top_k && options.top_k != 0 {
        return wrong(
            "options.auto_top_k",
            "K is given and to be chosen: leave one of top_k and auto_top_k out".into(),
        );
    }
    if options.top_k != 0 {
        settings.top_k = options.top_k as usize;
    }
    settings.lambda = options.lambda.unwrap_or(settings.lambda);
    settings.c = options.c.unwrap_or(settings.c);
    if !(0.0..=0.9).contains(&options.validation_fraction) {
        return wrong(
            "options.validation_fraction",
            format!("it is {}; give 0 to 0.9", options.validation_fraction),
        );
    }
    settings.unit = match proto::SamplingUnit::try_from(options.sampling_unit) {
        Ok(proto::SamplingUnit::Unspecified) => SamplingUnit::Auto,
        Ok(proto::SamplingUnit::Segment) => SamplingUnit::Segment,
        Ok(proto::SamplingUnit::WholeVideo) => SamplingUnit::WholeVideo,
        Err(_) => {
            return wrong(
                "options.sampling_unit",
                "no sampling unit that this version knows".into(),
            );
        }
    };
    match options.segment.and_then(|segment| segment.rule) {
        None => {}
        Some(Rule::Frames(n)) => settings.rule = SegmentRule::Frames(n),
        Some(Rule::Seconds(s)) => settings.rule = SegmentRule::Seconds(s),
    }
    Ok(settings)
}

/// Calibration on normal clips alone.
///
/// Fails with `InvalidArgument` and the field.
pub(super) fn normal_only(
    options: Option<proto::NormalOnly>,
    keep_heads: bool,
) -> Result<Option<NormalOnly>> {
    let Some(options) = options else {
        return Ok(None);
    };
    if keep_heads {
        return wrong(
            "normal_only",
            "heads of another calibration cannot be kept here: leave keep_heads out".into(),
        );
    }
    let rate = options.false_alarms_per_day;
    if !(rate > 0.0 && rate.is_finite()) {
        return wrong(
            "normal_only.false_alarms_per_day",
            format!("it is {rate}; give a number above 0"),
        );
    }
    Ok(Some(NormalOnly {
        false_alarms_per_day: rate,
        accept_upper_bound: options.accept_upper_bound,
    }))
}

fn wrong<T>(field: &str, message: String) -> Result<T> {
    Err(Error::invalid(message).with_field(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_the_command_lines_default() {
        let settings = hunt(None).unwrap();
        assert_eq!(settings, HuntSettings::default());
        assert_eq!((settings.prompts.len(), settings.top_k), (5, 5));
        assert_eq!(settings.rule, SegmentRule::Frames(48));
    }

    #[test]
    fn nonsense_is_refused_by_field() {
        let base = proto::HuntOptions::default;
        for (options, field) in [
            (
                proto::HuntOptions {
                    prompts: vec!["a".into(), " ".into()],
                    ..base()
                },
                "options.prompts[1]",
            ),
            (
                proto::HuntOptions {
                    prompts: vec!["a".into(), "a".into()],
                    ..base()
                },
                "options.prompts[1]",
            ),
            (
                proto::HuntOptions {
                    prompts: (0..33).map(|i| i.to_string()).collect(),
                    ..base()
                },
                "options.prompts",
            ),
            (
                proto::HuntOptions {
                    top_k: 3,
                    auto_top_k: true,
                    ..base()
                },
                "options.auto_top_k",
            ),
            (
                proto::HuntOptions {
                    validation_fraction: f64::NAN,
                    ..base()
                },
                "options.validation_fraction",
            ),
            (
                proto::HuntOptions {
                    sampling_unit: 9,
                    ..base()
                },
                "options.sampling_unit",
            ),
        ] {
            let error = hunt(Some(options)).unwrap_err();
            assert_eq!(error.field(), Some(field));
        }
        let rate = |rate| proto::NormalOnly {
            false_alarms_per_day: rate,
            accept_upper_bound: false,
        };
        assert!(normal_only(Some(rate(0.0)), false).is_err());
        assert!(normal_only(Some(rate(1.0)), true).is_err());
        assert!(normal_only(Some(rate(1.0)), false).unwrap().is_some());
    }
}
