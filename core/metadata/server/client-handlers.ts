/**
 * Who answers which method of a client's connection. Everything but opening a session and an administrator's
 * questions needs a living session on this connection.
 */
import type { MetadataMethods } from '../../wire/messages/metadata.ts'
import type { ParamsOf, ResultOf } from '../../wire/messages/method.ts'
import type { Handlers, Peer } from '../../wire/types.ts'
import type { ControlPlane } from './control-plane.ts'

type Methods = MetadataMethods
type WithSession<N extends keyof Methods> = (
  session: number,
  params: ParamsOf<Methods, N>,
) => ResultOf<Methods, N> | Promise<ResultOf<Methods, N>>

export function clientHandlers(control: ControlPlane): Handlers<Methods> {
  const {
    sessions,
    leases,
    intents,
    memberReports,
    admin,
    recovery,
    promotion,
    backup,
    fileSystem,
    keyValue,
    snapshots,
  } = control
  const living =
    <N extends keyof Methods>(handler: WithSession<N>) =>
    (params: ParamsOf<Methods, N>, peer: Peer) =>
      handler(sessions.require(peer), params)
  const files = Object.fromEntries(
    Object.entries({ ...fileSystem, ...keyValue }).map(([name, handler]) => [
      name,
      living(handler as WithSession<keyof Methods>),
    ]),
  ) as unknown as Pick<Handlers<Methods>, keyof typeof fileSystem | keyof typeof keyValue>
  return {
    ...files,
    'session.open': (params, peer) => sessions.open(params, peer),
    'session.resume': (params, peer) => sessions.resume(params, peer),
    'session.renew': (params, peer) => sessions.renew(params, peer),
    'session.close': (_params, peer) => sessions.close(peer),
    'lease.acquire': living<'lease.acquire'>((session, params) => leases.acquire(session, params)),
    'lease.update': living<'lease.update'>((session, params) => leases.update(session, params)),
    'lease.release': living<'lease.release'>((session, params) => leases.release(session, params)),
    'lease.return': living<'lease.return'>((session, params) => leases.return(session, params)),
    'lease.truncate': living<'lease.truncate'>((session, params) => leases.truncate(session, params)),
    'lease.zeroed': living<'lease.zeroed'>((session, params) => leases.zeroed(session, params)),
    'lease.unmap': living<'lease.unmap'>((session, params) => leases.unmap(session, params)),
    'intent.grant': living<'intent.grant'>((session, params) => intents.grant(session, params)),
    'intent.clear': living<'intent.clear'>((session, params) => intents.clear(session, params)),
    'chunk.locate': living<'chunk.locate'>((_session, params) => intents.locate(params)),
    'chunk.report': living<'chunk.report'>((session, params) => memberReports.fromClient(session, params)),
    'snapshot.create': living<'snapshot.create'>((session, params) => snapshots.create(session, params)),
    'snapshot.delete': living<'snapshot.delete'>((session, params) => snapshots.delete(session, params)),
    'snapshot.clone': living<'snapshot.clone'>((session, params) => snapshots.clone(session, params)),
    'snapshot.rollback': living<'snapshot.rollback'>((session, params) =>
      snapshots.rollback(session, params),
    ),
    'snapshot.list': living<'snapshot.list'>((_session, params) => snapshots.list(params)),
    'snapshot.info': living<'snapshot.info'>((_session, params) => snapshots.info(params)),
    'admin.stat': () => admin.stat(),
    'admin.services': () => admin.services(),
    'admin.events': (params) => admin.events(params),
    'admin.getConfig': () => admin.getConfig(),
    'admin.setConfig': living<'admin.setConfig'>((session, params) => admin.setConfig(session, params)),
    'admin.chunks': (params) => admin.chunks(params),
    'admin.check': (params) => admin.check(params),
    'admin.repair': (params) => admin.repair(params),
    'admin.shutdown': () => admin.shutdown(),
    'admin.stranded': (params) => promotion.stranded(params),
    'admin.promote': (params) => promotion.promote(params),
    'mds.add': (params) => admin.addMember(params),
    'mds.remove': (params) => admin.removeMember(params),
    'mds.backup': () => backup.begin(),
    'mds.backupPiece': (params) => backup.piece(params),
    'mds.backupEnd': (params) => backup.end(params),
    'mds.recovery': () => recovery.status(),
    'mds.recover': (params) => recovery.end(params),
    'mds.acknowledge': () => recovery.acknowledge(),
    'mds.discardUnknown': () => recovery.discardUnknown(),
  }
}
