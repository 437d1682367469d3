/**
 * alexnode: train AlexNet-class image classifiers from Node.js.
 *
 * `train()` does it all from options to a run folder; `openDataset()` and `Trainer` are the parts. `loadModel()` predicts with what was trained,
 * `evaluate()`, `compare()` and `similar()` look at it. Nothing here prints, installs signal handlers or keeps global state.
 */
import './supported.js';

export {
  type BaselineOutcome,
  type BenchEvent,
  type BenchLayer,
  type BenchOptions,
  type BenchPeer,
  type BenchRate,
  type BenchReport,
  type BenchSetting,
  type BenchShape,
  type BenchStep,
  bench,
  benchLatency,
  benchLoader,
  compareWithBaseline,
  type LatencyOptions,
  type LatencyReport,
  LOADER_STAGES,
  type LoaderOptions,
  type LoaderReport,
  type LoaderStage,
  type MissingPeer,
  PEERS,
  type PeerName,
  type PeerPlaces,
  type Slower,
  STEP_PARTS,
  type StepPart,
  writeRoofline,
} from './bench/index.js';
export { type CheckpointMetadata, readCheckpoint, type Saved } from './checkpoint.js';
export { type ChangedImage, type CompareCall, type ComparedModel, type Comparison, compare } from './compare.js';
export { parseDuration } from './config.js';
export {
  type Dataset,
  type DatasetConfig,
  type DatasetInfo,
  type DatasetOptions,
  type ImageSource,
  type ImageWithLabel,
  openDataset,
} from './data.js';
export {
  type CudaDevice,
  type CudaDiagnosis,
  type Diagnosis,
  doctor,
  type KernelCompiler,
  type Problem,
} from './doctor.js';
export type { EvaluateOptions, Evaluation, Judgement, Tensor } from './engine.js';
export { type Environment, VERSION } from './environment.js';
export { AlexnodeError, type ErrorCode } from './errors.js';
export { type EvaluateCall, type EvaluatedModel, type EvaluationReport, evaluate } from './evaluate.js';
export type {
  Change,
  CheckpointEvent,
  Cursor,
  EndEvent,
  EpochEvent,
  Finding,
  InitLayer,
  InitReport,
  LayerHealth,
  Metrics,
  PauseEvent,
  StartEvent,
  Status,
  StepEvent,
  TrainEvent,
  TrainResult,
  UnitHealth,
  WarningEvent,
} from './events.js';
export { type ExportCall, type ExportOnnxCall, exportOnnx, exportSafetensors, type OnnxFile } from './export.js';
export {
  type CheckedTraining,
  type Curve,
  type CurvesFound,
  checkedTrainings,
  type GpuCheckEvent,
  type GpuCheckOptions,
  type GpuCheckReport,
  type Gpus,
  gpuCheck,
  type KernelsFound,
  type LayerTime,
  PARTS,
  type Part,
  type PartName,
  type PassTime,
  type Placement,
  type PrecisionTiming,
  RATE_OF_2012,
  type SlotsFound,
  type TimingFound,
} from './gpu-check/index.js';
export { type ImageInput, isPicture, listPictures, type Pixels } from './images.js';
export * from './layers.js';
export { type Live, type LiveOptions, serveLive } from './live/index.js';
export {
  type FeatureOptions,
  type Guess,
  loadModel,
  type Model,
  type ModelOptions,
  type Prediction,
  type PredictOptions,
} from './model.js';
export { PRESETS, type Preset, type PresetName, type PresetOptions, preset } from './models/index.js';
export { suggestion } from './nearest.js';
export { type DeviceInfo, describeNetwork, type LayerInfo, listDevices, type NetworkInfo } from './network.js';
export {
  type PackChecked,
  type PackForecast,
  type Packing,
  type PackOptions,
  type PackProgress,
  packDataset,
  verifyPack,
} from './pack.js';
export { PRECISIONS, type Precision } from './precision.js';
export type { TrainOptions } from './prepare.js';
export type { Progress, RatePair, Rates, Recipe, Schedule, ScheduleSpec, ScheduleState } from './recipe.js';
export { type Rehearsal, type RehearseCall, rehearse } from './rehearse.js';
export { type Report, type ReportCall, report } from './report/index.js';
export { type Manifest, Run, readManifest, type Session } from './run.js';
export {
  LEAVE_OUT,
  type LeaveOut,
  type MarkedFile,
  type Scan,
  type ScanFindings,
  type ScanOptions,
  type ScanProgress,
  type ScanReport,
  type ScanSummary,
  scanFolder,
  writeQuarantine,
  writeScanReport,
} from './scan.js';
export { createSchedule } from './schedule.js';
export type { RunConfig, TrainerOptions } from './settle.js';
export { type Neighbour, type Similar, type SimilarCall, similar } from './similar.js';
export {
  type Ceilings,
  type CeilingsOptions,
  type Interval,
  measureCeilings,
  type OperationTiming,
  type PartTiming,
  type Pass,
  type Profile,
  type ProfiledStep,
  type ProfileMode,
  type ProfileOptions,
  type SlotName,
  type Spread,
  type TimingOptions,
  type Timings,
} from './timings.js';
export type { MeasureOptions } from './together.js';
export { type TrainCall, Training, train } from './train.js';
export { Trainer, type TrainerRunOptions } from './trainer.js';
