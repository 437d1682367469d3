/** Throws where there can be no addon. The entry imports it first: an error from here is clearer than that of the addon's loader. */
import { notInstalled, unsupported } from './platform.js';

const platform = `${process.platform}-${process.arch}`;
const problem = unsupported(platform) ?? notInstalled(platform);
if (problem !== undefined) throw problem;
