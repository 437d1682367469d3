/** Options by a name that nobody knows, or of a type that cannot be, are refused before anything is done. */
import test from 'ava';

import {
  AlexnodeError,
  bench,
  benchLatency,
  benchLoader,
  exportOnnx,
  exportSafetensors,
  gpuCheck,
  loadModel,
  measureCeilings,
  openDataset,
  packDataset,
  preset,
  rehearse,
  report,
  scanFolder,
  serveLive,
  Trainer,
  train,
  verifyPack,
} from '../lib/index.js';
import { drain, TINY_CALL, temporary } from './helpers.js';

/** A call with `options` that its types do not allow. */
type Call = (options: never) => unknown;

/** The error of a call, a promise or an iteration. */
async function refusal(call: Call, options: object): Promise<AlexnodeError> {
  try {
    const answer = call(options as never) as AsyncIterable<unknown> & Promise<unknown>;
    if (answer !== undefined && Symbol.asyncIterator in answer) for await (const _ of answer) break;
    else await answer;
  } catch (error) {
    if (error instanceof AlexnodeError) return error;
    throw error;
  }
  throw new Error('nothing was refused');
}

const file = `${temporary()}/none`;

for (const [name, call, options, culprit, hint] of [
  ['train', train, { dat: 'x' }, 'train.dat', '"data"'],
  ['train', train, { epochs: 3 }, 'train.epochs', 'recipe: { epochs'],
  ['rehearse', rehearse, { lr: 3 }, 'rehearse.lr', 'recipe: { lr'],
  ['report', report, { run: file, limits: 1 }, 'report.limits', '"limit"'],
  ['exportOnnx', exportOnnx, { model: file, file, embedPreprocesing: true }, 'export.embedP', '"embedPreprocessing"'],
  ['exportSafetensors', exportSafetensors, { model: file, file, path: file }, 'export.path', 'model, file'],
  ['loadModel', (o: never) => loadModel(file, o), { device: ['cpu'] }, 'model.device', '"devices"'],
  ['preset', (o: never) => preset('demo', o), { classes: 2, width: 3 }, 'preset demo.width', 'classes'],
  ['openDataset', openDataset, { source: 'generated', imagesize: 16 }, 'data.imagesize', '"imageSize"'],
  ['packDataset', packDataset, { source: file, target: file, sise: 3 }, 'pack.sise', 'imageSize'],
  ['verifyPack', (o: never) => verifyPack(file, o), { thread: 1 }, 'verify.thread', '"threads"'],
  ['scanFolder', scanFolder, { source: file, leave: [] }, 'scan.leave', '"leaveOut"'],
  ['bench', bench, { peer: ['torch'] }, 'bench.peer', '"peers"'],
  ['benchLoader', benchLoader, { round: 1 }, 'loader.round', '"rounds"'],
  ['benchLatency', benchLatency, { sample: 1 }, 'latency.sample', '"samples"'],
  ['gpuCheck', gpuCheck, { fast: true }, 'gpuCheck.fast', 'quick'],
  ['measureCeilings', (o: never) => measureCeilings('cpu', o), { round: 1 }, 'ceilings.round', '"rounds"'],
] as [string, Call, object, string, string][]) {
  test(`${name}: ${Object.keys(options).at(-1)} is refused`, async (t) => {
    const error = await refusal(call, options);
    t.is(error.code, 'ERR_USAGE');
    t.true(error.message.startsWith(culprit), error.message);
    t.true((error.hint ?? '').includes(hint), error.hint);
  });
}

test('the methods of a training refuse them, too, and train on', async (t) => {
  await using training = await train({ ...TINY_CALL, steps: 1 });
  const { trainer } = training;
  const { network, recipe } = trainer.config;
  for (const [call, options, message] of [
    [(o: never) => serveLive(training, o), { ports: 1 }, 'live.ports: no such field'],
    [(o: never) => Trainer.create(o), { network, recipe, data: training.data, sed: 1 }, 'trainer.sed: no such field'],
    [(o: never) => trainer.train(o), { step: 1 }, 'train.step: no such field'],
    [(o: never) => trainer.evaluate(o), { crop: 10 }, 'evaluate.crop: no such field'],
    [(o: never) => trainer.timings(o), { round: 10 }, 'timings.round: no such field'],
    [(o: never) => trainer.profile(o), { mode: 'train', steps: 1, step: 1 }, 'profile.step: no such field'],
  ] as [Call, object, string][]) {
    t.is((await refusal(call, options)).message, message);
  }
  await drain(training);
  t.is(training.result?.steps, 1);
});

test('values of another type name what is expected', async (t) => {
  for (const [options, message] of [
    [{ devices: 'cpu' }, 'train.devices: expected array, got "cpu"'],
    [{ data: 5 }, 'train.data: expected string, got 5'],
    [{ freeze: 'conv*' }, 'train.freeze: expected array, got "conv*"'],
    [{ lrScale: { fc8: '10' } }, 'train.lrScale.fc8: expected number, got "10"'],
    [{ steps: -1 }, 'train.steps: must be at least 0, got -1'],
    [{ tensorboard: 'yes' }, 'train.tensorboard: expected boolean, got "yes"'],
  ] as [object, string][]) {
    t.is((await refusal(train, options)).message, message);
  }
  const error = await refusal(train, null as never);
  t.is(error.code, 'ERR_USAGE');
});
