//! The named limits of the live sources, in one place.
//!
//! Each bounds what a target or a metrics server can make us hold; reaching one is missing data
//! that names the limit, never a cut answer taken for a whole one.

use super::exposition;

/// Instances an arm may have; the ones beyond are named as not observed.
pub const TARGETS_PER_ARM_MAX: usize = 128;

/// Limits of one collector.
#[derive(Clone, Debug)]
pub struct SourceLimits {
    /// Decoded bytes of one metrics body.
    pub body_bytes_max: usize,
    /// Decoded bytes of one health body.
    pub health_bytes_max: usize,
    /// Instances of one arm.
    pub targets_per_arm_max: usize,
    /// Limits of the exposition reader.
    pub exposition: std::sync::Arc<exposition::Limits>,
}

impl Default for SourceLimits {
    fn default() -> Self {
        Self {
            // The largest real body met was 2.7 MB; six times that is a mistake, not a service.
            body_bytes_max: 16 << 20,
            health_bytes_max: 256 << 10,
            targets_per_arm_max: TARGETS_PER_ARM_MAX,
            exposition: std::sync::Arc::default(),
        }
    }
}
