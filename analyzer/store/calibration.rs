//! The record of a calibration, which lies beside the order of its analysis.
//!
//! Replaying the journal begins with it, so its numbers come back bit for bit like those of the
//! journal itself.

use serde::{Deserialize, Serialize};

use super::record::{Exact, finite};
use crate::engine::{
    calibration::{Calibration, SignalCalibration, Usual},
    noise::Origin,
};

/// Version of the shape.
const VERSION: u32 = 1;

/// The record of a calibration, or why it cannot be kept: it holds a number that is not finite.
pub fn write(calibration: &Calibration) -> Result<String, String> {
    let signals = calibration.signals.iter().enumerate().map(|(index, signal)| {
        let record = signal.map(|signal| signal_record(&signal)).transpose();
        record.map_err(|fault| format!("{fault} in the calibration of signal {index}"))
    });
    let record = CalibrationRecord { v: VERSION, signals: signals.collect::<Result<_, _>>()? };
    serde_json::to_string(&record).map_err(|error| error.to_string())
}

/// The calibration of a record, or why it cannot be read.
pub fn read(record: &str) -> Result<Calibration, String> {
    let Version { v } = serde_json::from_str(record)
        .map_err(|error| format!("no version in the record: {error}"))?;
    if v != VERSION {
        return Err(format!("the record has version {v}, this program reads version {VERSION}"));
    }
    let record: CalibrationRecord =
        serde_json::from_str(record).map_err(|error| error.to_string())?;
    let signal = |record: SignalRecord| SignalCalibration {
        kappa_secs: record.kappa_secs.0,
        spread: record.spread.0,
        usual: Usual { events: record.usual.0.0, total: record.usual.1.0 },
        origin: match record.origin {
            OriginRecord::Prior => Origin::Prior,
            OriginRecord::History(secs) => Origin::History { secs: secs.0 },
            OriginRecord::Analysis(history, secs) => {
                Origin::Analysis { history_secs: history.0, secs: secs.0 }
            }
        },
    };
    let signals = record.signals.into_iter().map(|record| record.map(signal)).collect();
    Ok(Calibration { signals })
}

fn signal_record(signal: &SignalCalibration) -> Result<SignalRecord, String> {
    let SignalCalibration { kappa_secs, spread, usual, origin } = *signal;
    let origin = match origin {
        Origin::Prior => OriginRecord::Prior,
        Origin::History { secs } => OriginRecord::History(finite(secs)?),
        Origin::Analysis { history_secs, secs } => {
            OriginRecord::Analysis(finite(history_secs)?, finite(secs)?)
        }
    };
    Ok(SignalRecord {
        kappa_secs: finite(kappa_secs)?,
        spread: finite(spread)?,
        usual: (finite(usual.events)?, finite(usual.total)?),
        origin,
    })
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CalibrationRecord {
    v: u32,
    #[serde(rename = "s")]
    signals: Vec<Option<SignalRecord>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignalRecord {
    #[serde(rename = "k")]
    kappa_secs: Exact,
    #[serde(rename = "w")]
    spread: Exact,
    #[serde(rename = "u")]
    usual: (Exact, Exact),
    #[serde(rename = "o")]
    origin: OriginRecord,
}

#[derive(Serialize, Deserialize)]
enum OriginRecord {
    #[serde(rename = "prior")]
    Prior,
    #[serde(rename = "history")]
    History(Exact),
    #[serde(rename = "analysis")]
    Analysis(Exact, Exact),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calibration_comes_back_bit_for_bit() {
        let signal = |kappa_secs, origin| {
            let usual = Usual { events: 0.5, total: 100.0 };
            Some(SignalCalibration { kappa_secs, spread: 2.0, usual, origin })
        };
        let calibration = Calibration {
            signals: vec![
                None,
                signal(0.1 + 0.2, Origin::History { secs: 3600.0 }),
                signal(5e-324, Origin::Prior),
                signal(0.25, Origin::Analysis { history_secs: 0.0, secs: 1.0 / 3.0 }),
            ],
        };
        let record = write(&calibration).expect("finite");
        assert_eq!(
            record,
            r#"{"v":1,"s":[null,{"k":"0.30000000000000004","w":2,"u":["0.5",100],"o":{"history":3600}},{"k":"5e-324","w":2,"u":["0.5",100],"o":"prior"},{"k":"0.25","w":2,"u":["0.5",100],"o":{"analysis":[0,"0.3333333333333333"]}}]}"#
        );
        assert_eq!(read(&record).expect("just written"), calibration);
        let bad = Calibration { signals: vec![signal(f64::NAN, Origin::Prior)] };
        assert_eq!(write(&bad), Err("found NaN in the calibration of signal 0".to_owned()));
        assert!(read(r#"{"v":9}"#).expect_err("another version").contains("version 9"));
    }
}
