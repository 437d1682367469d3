//! `NativeSurvey`: a look at a whole folder, step by step, so that JavaScript hears of progress by asking for more.

use crate::{
    error::{answer, json, parse, to_js},
    owner::Owner,
};
use alexnode_data::survey::{Survey, SurveyOptions};
use napi::{Env, bindgen_prelude::Object};
use napi_derive::napi;
use serde::Serialize;

/// A scan of a folder.
#[napi]
pub struct NativeSurvey {
    begin: Begin,
    survey: Owner<Survey>,
}

/// What is known before the first step.
#[derive(Clone, Serialize)]
struct Begin {
    done: usize,
    images: usize,
    quarantine: Option<String>,
}

#[napi]
impl NativeSurvey {
    /// Lists the folder; `options` as in `lib/scan.ts`.
    #[napi(ts_return_type = "Promise<NativeSurvey>")]
    pub fn open(env: &Env, options: String) -> napi::Result<Object<'_>> {
        let options: SurveyOptions = parse("scan", &options).map_err(|e| to_js(*env, &e))?;
        let make = move |_: &_| Survey::open(&options);
        Owner::create(env, "scan", make, |survey, made| {
            let (progress, quarantine) = (made.progress(), made.quarantine());
            let quarantine = quarantine.map(|path| path.to_string_lossy().into_owned());
            Self { begin: Begin { done: progress.done, images: progress.images, quarantine }, survey }
        })
    }

    /// How many files there are, how many are known already, and where a quarantine list goes by default.
    #[napi]
    pub fn begin(&self, env: Env) -> napi::Result<String> {
        answer(env, || json(&self.begin))
    }

    /// Looks at files for a moment and tells how far it has come; null when all are done.
    #[napi(ts_return_type = "Promise<string | null>")]
    pub fn step<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let work = |survey: &mut Survey, cancel: &_| survey.step(cancel)?.map(|progress| json(&progress)).transpose();
        self.survey.submit(env, work, |_, progress| Ok(progress))
    }

    /// What was found: `{ report, summary, quarantine }`.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn findings<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let work = |survey: &mut Survey, cancel: &_| json(&survey.findings(cancel)?);
        self.survey.submit(env, work, |_, findings| Ok(findings))
    }

    /// Asks what is under way to end early.
    #[napi]
    pub fn cancel(&self) {
        self.survey.cancel();
    }

    /// Ends it. What was found stays for the next time. May be called again.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        self.survey.dispose(env)
    }
}
