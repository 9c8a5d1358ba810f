/** The sample plugin: a command, a section of the configuration, and a hook tap. */
import { definePlugin } from '@cairn/core/plugin'
import { Greeter } from './greeter.ts'

export default definePlugin({
  config: {
    greeting: { doc: 'What it says', format: 'string', default: 'Hello' },
    pause: { doc: 'Time between two greetings in the log', format: 'duration', default: '1 h' },
  },

  // Synchronous: tap and register. Work begins in onStart.
  apply(kernel, config) {
    const greeter = new Greeter(config.greeting)

    kernel.hooks.health.collect.tap(() => ({
      status: 'ok',
      message: `${greeter.count} greetings so far`,
    }))

    kernel.hooks.cli.register.tap(() => [
      {
        name: 'hello',
        description: 'Say hello',
        example: 'cairn hello world',
        arguments: [{ name: 'name', description: 'Whom to greet', optional: true }],
        run({ arguments: [name], output }) {
          const text = greeter.greet(typeof name === 'string' ? name : 'world')
          output.document({ text }, [text])
        },
      },
    ])

    kernel.onStart(() => {
      const greet = (): void => {
        kernel.logger.info(greeter.greet('log'))
        kernel.clock.setTimer(config.pause, greet) // ends with the plugin: no need to cancel
      }
      greet()
      kernel.onStop(() => kernel.logger.info('Goodbye'))
    })
  },
})
