//! MODEL: clips to head features; the only room that imports candle.

pub mod pixels;
pub mod prompt;
