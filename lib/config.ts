/** Checked configuration: strict schemas, and messages that name the culprit and the nearest right name. */
import { z } from 'zod';

import { type AlexnodeError, usage } from './errors.js';
import { suggestion } from './nearest.js';
import type { Recipe } from './recipe.js';

const positive = z.number().positive();
const share = z.number().min(0).max(1);
const count = z.int().positive();
const whole = z.int().nonnegative();
const rate = z.number().nonnegative();

/** Seeds are whole numbers that JavaScript holds exactly. */
export const seedSchema = z.int().nonnegative().max(Number.MAX_SAFE_INTEGER);

/** Numbers of things of which there is at least one. */
export const countSchema = count;

/** Views per image; the paper's tests have one or ten. */
export const cropsSchema = z.literal([1, 10]).default(1);

/** What an evaluation is of. */
export const evaluateSchema = z.strictObject({
  split: z.enum(['val', 'train']).default('val'),
  crops: cropsSchema,
  limit: count.optional(),
});

/** `ModelOptions`. */
export const modelSchema = z.strictObject({
  devices: z.array(z.string()).min(1).max(2).optional(),
  threads: count.optional(),
  precision: z.string().optional(),
  batch: count.optional(),
  notices: z.boolean().optional(),
});

const badImageSchema = z.enum(['error', 'skip']);

/** `MeasureOptions`. */
const measureSchema = z.strictObject({
  ...modelSchema.shape,
  ...evaluateSchema.shape,
  data: z.string().optional(),
  onBadImage: badImageSchema.optional(),
  quarantine: z.string().min(1).optional(),
  signal: z.unknown().optional(),
});

/** `EvaluateCall`, its models as a list. */
export const evaluateCallSchema = measureSchema.extend({ model: z.array(z.string()).min(1) });

/** `CompareCall`. */
export const compareCallSchema = measureSchema.extend({ models: z.array(z.string()).length(2) });

/** `SimilarCall`, but for its images. */
export const similarCallSchema = z.strictObject({
  ...modelSchema.shape,
  model: z.string(),
  images: z.unknown(),
  topK: count.default(6),
  layer: z.string().optional(),
  data: z.string().optional(),
  onBadImage: badImageSchema.optional(),
  signal: z.unknown().optional(),
});

/** `PredictOptions`. */
export const predictSchema = z.strictObject({
  topK: count.default(5),
  crops: cropsSchema,
  signal: z.unknown().optional(),
});

/** `ScheduleSpec`; what may be left out takes the value of the paper (plateau) or of the 2012 code (dexp). */
export const scheduleSchema = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('constant') }),
  z.strictObject({
    type: z.literal('step'),
    at: z.array(z.number().nonnegative()).min(1),
    factor: positive.default(0.1),
  }),
  z.strictObject({
    type: z.literal('plateau'),
    factor: positive.default(0.1),
    patience: count.default(3),
    drops: whole.default(3),
    minDelta: rate.default(0),
  }),
  z.strictObject({ type: z.literal('dexp'), factor: positive.default(250), steps: z.int().min(2).default(4) }),
]);

const pairSchema = z.strictObject({ weight: rate, bias: rate });

/** `Recipe`. */
export const recipeSchema = z.strictObject({
  batch: count,
  epochs: count,
  momentum: share,
  lr: rate,
  biasLr: rate,
  schedule: scheduleSchema,
  biasSchedule: scheduleSchema.optional(),
  layerRates: z.record(z.string(), z.union([rate, pairSchema])).optional(),
  layerSchedules: z.record(z.string(), scheduleSchema).optional(),
  freezeAt: z.record(z.string(), whole).optional(),
  colourNoise: rate,
  colourNoiseOffAt: share.optional(),
  augment: z.boolean(),
  weightDecay: rate.optional(),
  dropout: share.optional(),
});

/** What the data set is made of; the addon's own `DatasetOptions`. */
export const dataSchema = z.strictObject({
  source: z.string().min(1),
  imageSize: count,
  seed: seedSchema.default(1),
  valFraction: share.default(0.1),
  onBadImage: badImageSchema.default('error'),
  quarantine: z.string().min(1).optional(),
  limit: count.optional(),
  balance: z.enum(['none', 'sample', 'loss']).default('none'),
  classes: z.array(z.string().min(1)).optional(),
  threads: count.optional(),
  cacheDir: z.string().min(1).optional(),
  keepBytes: z.int().min(0).optional(),
});

/** What a user without a preset starts from: the paper's section 5 with the bias rate of the 2012 code. */
export const RECIPE_DEFAULTS: Recipe = {
  batch: 128,
  epochs: 90,
  momentum: 0.9,
  lr: 0.01,
  biasLr: 0.02,
  schedule: { type: 'plateau', factor: 0.1, patience: 3, drops: 3, minDelta: 0 },
  colourNoise: 0.1,
  augment: true,
};

type Issue = z.core.$ZodIssue;

/** The schema at `path`, as far as it is an object of named fields; used to list the right names. */
function namesAt(schema: unknown, path: readonly PropertyKey[], value: unknown): string[] {
  let current = unwrap(schema);
  let here = value;
  for (const key of path) {
    if (current instanceof z.ZodObject) current = unwrap(current.shape[String(key)]);
    else if (current instanceof z.ZodRecord) current = unwrap(current.valueType);
    else return [];
    here = (here as Record<PropertyKey, unknown> | undefined)?.[key];
    if (current instanceof z.ZodDiscriminatedUnion) {
      const type = (here as { type?: unknown } | undefined)?.type;
      const option = current.options.find(
        (o) => o instanceof z.ZodObject && (o.shape.type as z.ZodLiteral | undefined)?.values.has(type as never),
      );
      current = option ?? current;
    }
  }
  return current instanceof z.ZodObject ? Object.keys(current.shape) : [];
}

function unwrap(schema: unknown): unknown {
  let current = schema;
  while (current instanceof z.ZodOptional || current instanceof z.ZodDefault || current instanceof z.ZodNullable) {
    current = current.unwrap();
  }
  return current;
}

function at(what: string, path: readonly PropertyKey[], key?: string): string {
  const inner = [...path.map(String), ...(key === undefined ? [] : [key])].join('.');
  if (inner === '') return what;
  return what.startsWith('--') ? `${what} ${inner}` : `${what}.${inner}`;
}

function describe(issue: Issue, schema: unknown, value: unknown, what: string): AlexnodeError {
  if (issue.code === 'unrecognized_keys') {
    const key = issue.keys[0] ?? '';
    const names = namesAt(schema, issue.path, value);
    return usage(`${at(what, issue.path, key)}: no such field`, suggestion(key, names));
  }
  const got = issue.path.reduce<unknown>((v, key) => (v as Record<PropertyKey, unknown> | undefined)?.[key], value);
  const shown = got === undefined ? 'nothing' : JSON.stringify(got);
  const place = at(what, issue.path);
  if ((issue.code === 'too_small' || issue.code === 'too_big') && issue.origin === 'array') {
    const [word, bound] = issue.code === 'too_small' ? ['least', issue.minimum] : ['most', issue.maximum];
    return usage(`${place}: must have at ${word} ${bound} entries, got ${shown}`);
  }
  switch (issue.code) {
    case 'invalid_type':
      return usage(`${place}: expected ${issue.expected}, got ${shown}`);
    case 'too_small':
      return usage(`${place}: must be ${issue.inclusive ? 'at least' : 'greater than'} ${issue.minimum}, got ${shown}`);
    case 'too_big':
      return usage(`${place}: must be ${issue.inclusive ? 'at most' : 'less than'} ${issue.maximum}, got ${shown}`);
    case 'invalid_value': {
      const names = issue.values.map(String);
      return usage(`${place}: must be one of ${names.join(', ')}; got ${shown}`, suggestion(String(got), names));
    }
    case 'invalid_union': {
      const names = unionTypes(unwrapAt(schema, issue.path));
      if (names.length > 0) {
        const word = typeof got === 'object' && got !== null ? String((got as { type?: unknown }).type) : String(got);
        return usage(`${place}: must be one of ${names.join(', ')}; got ${shown}`, suggestion(word, names));
      }
      return usage(`${place}: ${shown} is none of the forms that it may have`);
    }
    default:
      return usage(`${place}: ${issue.message}, got ${shown}`);
  }
}

/** The schema at `path`; a path into a discriminated union ends at the union. */
function unwrapAt(schema: unknown, path: readonly PropertyKey[]): unknown {
  let current = unwrap(schema);
  for (const key of path) {
    if (!(current instanceof z.ZodObject)) break;
    current = unwrap(current.shape[String(key)]);
  }
  return current;
}

function unionTypes(schema: unknown): string[] {
  if (!(schema instanceof z.ZodDiscriminatedUnion)) return [];
  return schema.options.flatMap((option) =>
    option instanceof z.ZodObject ? [...(option.shape.type as z.ZodLiteral).values].map(String) : [],
  );
}

/** `value` checked against `schema`; the first fault is ERR_USAGE: `recipe.lr: expected number, got "fast"`. */
export function check<S extends z.ZodType>(schema: S, value: unknown, what: string): z.output<S> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const { issues } = result.error;
  // A wrong name is why another is missing.
  const issue = issues.find(({ code }) => code === 'unrecognized_keys') ?? issues[0];
  throw issue === undefined ? usage(`${what}: not valid`) : describe(issue, schema, value, what);
}

/** A recipe checked whole. Fields that are present but `undefined` are left out. */
export function checkRecipe(value: unknown, what = 'recipe'): Recipe {
  return withoutUndefined(check(recipeSchema, value, what)) as unknown as Recipe;
}

function withoutUndefined(value: object): Record<string, unknown> {
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined));
}

/**
 * `base` with `changes` put over it. Where `lr` changes and `biasLr` is not given, the biases keep their ratio to it. A schedule may
 * be named by its type alone (`'dexp'`); `null` removes a field that may be absent.
 */
export function changeRecipe(base: Recipe, changes: Readonly<Record<string, unknown>>, what = 'recipe'): Recipe {
  const next: Record<string, unknown> = { ...structuredClone(base), ...withoutUndefined(changes) };
  for (const key of ['schedule', 'biasSchedule']) {
    if (typeof next[key] === 'string') next[key] = { type: next[key] };
  }
  for (const [key, value] of Object.entries(next)) if (value === null) delete next[key];
  if (typeof changes.lr === 'number' && changes.biasLr === undefined && base.lr > 0) {
    next.biasLr = (base.biasLr * changes.lr) / base.lr;
  }
  return checkRecipe(next, what);
}

/** The value of `--set key=value`: JSON where it is JSON, a list of numbers where it has commas, otherwise text. */
function settingValue(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    const parts = text.split(',').map((part) => part.trim());
    if (parts.length > 1 && parts.every((part) => part !== '' && Number.isFinite(Number(part))))
      return parts.map(Number);
    return text;
  }
}

/**
 * The changes that `--set` settings (`lr=0.001`, `schedule.factor=0.5`, `layerRates.conv1=0.1`) make to `base`, for
 * `changeRecipe`. A dotted key reaches into a field; setting `schedule.type` starts that schedule anew.
 */
export function parseSettings(base: Recipe, settings: readonly string[]): Record<string, unknown> {
  const changes: Record<string, unknown> = {};
  const names = Object.keys(recipeSchema.shape);
  for (const setting of settings) {
    const equals = setting.indexOf('=');
    if (equals < 1) throw usage(`--set ${setting}: expected key=value`, 'For example --set lr=0.001.');
    const [field = '', ...inner] = setting.slice(0, equals).trim().split('.');
    const value = settingValue(setting.slice(equals + 1).trim());
    if (!names.includes(field)) throw usage(`--set ${field}: no such key`, suggestion(field, names));
    if (inner.length === 0) {
      changes[field] = value;
      continue;
    }
    const isType = inner.length === 1 && inner[0] === 'type' && field.toLowerCase().endsWith('schedule');
    const before = changes[field] ?? base[field as keyof Recipe];
    const root: Record<string, unknown> =
      isType || typeof before !== 'object' || before === null ? {} : structuredClone(before as Record<string, unknown>);
    let node = root;
    for (const key of inner.slice(0, -1)) {
      const child = node[key];
      node[key] = typeof child === 'object' && child !== null ? child : {};
      node = node[key] as Record<string, unknown>;
    }
    node[inner.at(-1) as string] = value;
    changes[field] = root;
  }
  return changes;
}

const UNITS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 };

/** Seconds of a duration such as `10m`, `90s`, `1.5h`, or a bare number of seconds. ERR_USAGE names `what`. */
export function parseDuration(text: string | number, what: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([smhd]?)$/.exec(String(text).trim());
  const seconds = match === null ? Number.NaN : Number(match[1]) * (UNITS[match[2] || 's'] ?? Number.NaN);
  if (!(seconds > 0)) {
    throw usage(`${what}: expected a duration, got ${JSON.stringify(text)}`, 'For example 90s, 10m or 2h.');
  }
  return seconds;
}
