/** Functions that yield, and what they return: nobody asks it for anything, so that their bodies would never run. */

function isA(value: unknown, ...names: string[]): boolean {
  return names.includes(Object.prototype.toString.call(value).slice(8, -1))
}

export function isGeneratorFunction(value: unknown): boolean {
  return isA(value, 'GeneratorFunction', 'AsyncGeneratorFunction')
}

export function isGenerator(value: unknown): boolean {
  return isA(value, 'Generator', 'AsyncGenerator')
}
