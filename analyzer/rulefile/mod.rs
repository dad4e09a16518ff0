//! rulefile
