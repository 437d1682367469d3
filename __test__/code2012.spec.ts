import test from 'ava';

import { type StepEvent, train } from '../lib/index.js';
import { drain, sharedData, temporary } from './helpers.js';

test('the first loss of code2012 on photographs is near that of guessing', async (t) => {
  const archive = sharedData('imagenette224-subset/imagenette224-subset.tar');
  if (archive === undefined) t.log('without the shared photographs: on generated images');
  await using training = await train({
    preset: 'code2012',
    recipe: { batch: 16 },
    data: archive ?? 'generated',
    cacheDir: temporary(),
    limit: 32,
    steps: 1,
  });
  const steps = (await drain(training)).filter((event): event is StepEvent => event.type === 'step');
  const chance = Math.log(training.data.classes.length);
  const loss = steps[0]?.loss ?? Number.NaN;
  t.true(loss > chance - 0.1 && loss < chance + 1, `${loss}, guessing: ${chance}`);
  t.is(training.trainer.info.parameters - 10 * 4_097, 60_965_224 - 1_000 * 4_097);
});
