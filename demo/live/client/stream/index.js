export { StreamError } from './messages.js';
export { Stream } from './stream.js';
