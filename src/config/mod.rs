//! CONFIG: file and environment to typed settings; the only reader of the environment.
