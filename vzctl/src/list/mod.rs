//! `vzlist`.
