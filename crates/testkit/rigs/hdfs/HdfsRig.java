// SPDX-License-Identifier: Apache-2.0

import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.File;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.commons.io.FileUtils;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.crypto.CryptoProtocolVersion;
import org.apache.hadoop.fs.CreateFlag;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.permission.FsPermission;
import org.apache.hadoop.ha.HAServiceProtocol.RequestSource;
import org.apache.hadoop.ha.HAServiceProtocol.StateChangeRequestInfo;
import org.apache.hadoop.hdfs.DistributedFileSystem;
import org.apache.hadoop.hdfs.HdfsConfiguration;
import org.apache.hadoop.hdfs.protocol.ClientProtocol;
import org.apache.hadoop.hdfs.protocol.HdfsConstants.DatanodeReportType;
import org.apache.hadoop.hdfs.protocol.HdfsConstants.SafeModeAction;
import org.apache.hadoop.hdfs.protocol.HdfsFileStatus;
import org.apache.hadoop.hdfs.server.datanode.DataNode;
import org.apache.hadoop.hdfs.server.namenode.EditLogFileOutputStream;
import org.apache.hadoop.hdfs.server.namenode.NameNode;
import org.apache.hadoop.http.HttpServer2;
import org.apache.hadoop.io.EnumSetWritable;
import org.apache.hadoop.metrics2.lib.DefaultMetricsSystem;
import org.apache.hadoop.security.UserGroupInformation;
import org.apache.hadoop.security.authorize.ProxyUsers;

/**
 * Real name nodes, a real data node and, on demand, HttpFS in one JVM, all on 127.0.0.1, on ports that were free.
 *
 * <p>Arguments: DIR NAME_NODES [key=value ...]. Two name nodes are an HA pair called "rig". The file
 * DIR/ready tells the ports: control, then RPC and HTTP of each name node. The control port takes
 * commands that change the file system, or the servers, behind a client's back. All ends, and DIR
 * is removed, when the standard input does.
 */
public final class HdfsRig {
  private final Path dir;
  private final String[] settings;
  private final List<NameNode> nameNodes = new ArrayList<>();
  private final Map<String, FSDataOutputStream> held = new ConcurrentHashMap<>();
  private final HdfsConfiguration client;
  private DataNode dataNode;
  private int gatewayPort;
  private DistributedFileSystem files;

  public static void main(String[] args) throws Exception {
    DefaultMetricsSystem.setMiniClusterMode(true);
    // Nothing here outlives the process: edits need not reach the disk.
    EditLogFileOutputStream.setShouldSkipFsyncForTesting(true);
    new HdfsRig(args).run();
  }

  private HdfsRig(String[] args) throws Exception {
    dir = Path.of(args[0]).toAbsolutePath();
    settings = Arrays.copyOfRange(args, 2, args.length);
    endWithInput();
    login();
    if (Integer.parseInt(args[1]) > 1) {
      startPair();
    } else {
      startOne();
    }
    client = base();
    if (nameNodes.size() > 1) {
      pair(client, ports());
    } else {
      client.set("fs.defaultFS", "hdfs://127.0.0.1:" + nameNodes.get(0).getNameNodeAddress().getPort());
    }
    startDataNode();
    files = (DistributedFileSystem) FileSystem.newInstance(client);
    await();
    files.setPermission(path("/"), new FsPermission((short) 0777));
  }

  private void login() throws Exception {
    HdfsConfiguration conf = base();
    if ("kerberos".equals(conf.get("hadoop.security.authentication"))) {
      UserGroupInformation.setConfiguration(conf);
      UserGroupInformation.loginUserFromKeytab(
          conf.get("dfs.namenode.kerberos.principal"), conf.get("dfs.namenode.keytab.file"));
    }
  }

  private HdfsConfiguration base() {
    HdfsConfiguration conf = new HdfsConfiguration();
    conf.set("fs.defaultFS", "hdfs://127.0.0.1:0");
    conf.set("dfs.namenode.http-address", "127.0.0.1:0");
    conf.set("dfs.datanode.address", "127.0.0.1:0");
    conf.set("dfs.datanode.ipc.address", "127.0.0.1:0");
    conf.set("dfs.datanode.http.address", "127.0.0.1:0");
    conf.set("dfs.datanode.hostname", "127.0.0.1");
    conf.set("dfs.datanode.data.dir", dir.resolve("data").toUri().toString());
    conf.set("dfs.replication", "1");
    conf.set("dfs.blocksize", "1048576");
    // A file is closed when its block was reported; 400 ms is long to wait between two looks.
    conf.set("dfs.client.block.write.locateFollowingBlock.initial.delay.ms", "2");
    conf.set("dfs.client.block.write.locateFollowingBlock.retries", "14");
    conf.set("dfs.namenode.fs-limits.min-block-size", "1048576");
    conf.set("dfs.namenode.datanode.registration.ip-hostname-check", "false");
    conf.set("dfs.namenode.safemode.extension", "0");
    conf.set("dfs.heartbeat.interval", "1");
    conf.set("dfs.namenode.heartbeat.recheck-interval", "2000");
    conf.set("dfs.blockreport.initialDelay", "0s");
    conf.set("dfs.ha.tail-edits.period", "1s");
    String user = System.getProperty("user.name");
    conf.set("hadoop.proxyuser." + user + ".hosts", "*");
    conf.set("hadoop.proxyuser." + user + ".groups", "*");
    for (String setting : settings) {
      String[] pair = setting.split("=", 2);
      conf.set(pair[0], pair[1]);
    }
    return conf;
  }

  private void startOne() throws Exception {
    HdfsConfiguration conf = base();
    conf.set("dfs.namenode.name.dir", dir.resolve("name").toUri().toString());
    NameNode.format(conf);
    nameNodes.add(NameNode.createNameNode(new String[0], conf));
  }

  /** Starts an active and a standby name node over one shared directory of edits. */
  private void startPair() throws Exception {
    int[] ports = new int[4];
    for (int i = 0; i < ports.length; i++) {
      try (ServerSocket free = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
        ports[i] = free.getLocalPort();
      }
    }
    for (int i = 0; i < 2; i++) {
      HdfsConfiguration conf = base();
      pair(conf, ports);
      conf.set("dfs.nameservice.id", "rig");
      conf.set("dfs.ha.namenode.id", "nn" + (i + 1));
      conf.set("dfs.namenode.shared.edits.dir", dir.resolve("shared").toUri().toString());
      conf.set("dfs.namenode.name.dir", dir.resolve("name" + i).toUri().toString());
      if (i == 0) {
        NameNode.format(conf);
      } else {
        FileUtils.copyDirectory(dir.resolve("name0").toFile(), dir.resolve("name1").toFile());
        new File(dir.resolve("name1").toFile(), "in_use.lock").delete();
      }
      nameNodes.add(NameNode.createNameNode(new String[0], conf));
      if (i == 0) {
        active(0);
      }
    }
  }

  private static void pair(HdfsConfiguration conf, int[] ports) {
    conf.set("fs.defaultFS", "hdfs://rig");
    conf.set("dfs.nameservices", "rig");
    conf.set("dfs.ha.namenodes.rig", "nn1,nn2");
    for (int i = 0; i < 2; i++) {
      conf.set("dfs.namenode.rpc-address.rig.nn" + (i + 1), "127.0.0.1:" + ports[2 * i]);
      conf.set("dfs.namenode.http-address.rig.nn" + (i + 1), "127.0.0.1:" + ports[2 * i + 1]);
    }
    conf.set(
        "dfs.client.failover.proxy.provider.rig",
        "org.apache.hadoop.hdfs.server.namenode.ha.ConfiguredFailoverProxyProvider");
  }

  private int[] ports() {
    int[] ports = new int[2 * nameNodes.size()];
    for (int i = 0; i < nameNodes.size(); i++) {
      ports[2 * i] = nameNodes.get(i).getNameNodeAddress().getPort();
      InetSocketAddress web = nameNodes.get(i).getHttpAddress();
      InetSocketAddress tls = nameNodes.get(i).getHttpsAddress();
      ports[2 * i + 1] = (web != null ? web : tls).getPort();
    }
    return ports;
  }

  private void active(int index) throws Exception {
    StateChangeRequestInfo forced = new StateChangeRequestInfo(RequestSource.REQUEST_BY_USER_FORCED);
    for (int i = 0; i < nameNodes.size(); i++) {
      if (i != index && nameNodes.get(i).isActiveState()) {
        nameNodes.get(i).getRpcServer().transitionToStandby(forced);
      }
    }
    nameNodes.get(index).getRpcServer().transitionToActive(forced);
  }

  private void startDataNode() throws Exception {
    HdfsConfiguration conf = base();
    if (nameNodes.size() > 1) {
      pair(conf, ports());
    } else {
      conf.set("fs.defaultFS", client.get("fs.defaultFS"));
    }
    dataNode = DataNode.createDataNode(new String[0], conf);
  }

  /** Waits until the data node is known and files can be written. */
  private void await() throws Exception {
    while (files.isInSafeMode() || files.getDataNodeStats(DatanodeReportType.LIVE).length < 1) {
      Thread.sleep(20);
    }
  }

  private void run() throws Exception {
    ServerSocket control = new ServerSocket(0, 64, InetAddress.getLoopbackAddress());
    StringBuilder ready = new StringBuilder().append(control.getLocalPort());
    for (int port : ports()) {
      ready.append(' ').append(port);
    }
    Path made = Files.writeString(dir.resolve("ready.new"), ready.append('\n'));
    Files.move(made, dir.resolve("ready"), StandardCopyOption.ATOMIC_MOVE);
    while (true) {
      Socket socket = control.accept();
      Thread server = new Thread(() -> serve(socket));
      server.setDaemon(true);
      server.start();
    }
  }

  /** One connection, one command: a count of byte strings, each with its length before it. */
  private void serve(Socket socket) {
    try (socket) {
      DataInputStream in = new DataInputStream(socket.getInputStream());
      byte[][] words = new byte[in.readInt()][];
      for (int i = 0; i < words.length; i++) {
        words[i] = new byte[in.readInt()];
        in.readFully(words[i]);
      }
      int status = 0;
      String answer;
      try {
        answer = obey(text(words[0]), words);
      } catch (Exception error) {
        status = 1;
        answer = error.toString();
      }
      byte[] bytes = answer.getBytes(StandardCharsets.UTF_8);
      DataOutputStream out = new DataOutputStream(socket.getOutputStream());
      out.writeInt(status);
      out.writeInt(bytes.length);
      out.write(bytes);
      out.flush();
    } catch (Exception error) {
      error.printStackTrace();
    }
  }

  private String obey(String command, byte[][] words) throws Exception {
    String first = words.length > 1 ? text(words[1]) : "";
    switch (command) {
      case "put":
        try (FSDataOutputStream out = files.create(path(first), true)) {
          out.write(words[2]);
        }
        return "";
      case "fill":
        Arrays.stream(words, 2, words.length).forEach(name -> makeEmpty(first + text(name)));
        return "";
      case "append":
        try (FSDataOutputStream out = files.append(path(first))) {
          out.write(words[2]);
        }
        return "";
      case "truncate":
        return String.valueOf(files.truncate(path(first), Long.parseLong(text(words[2]))));
      case "delete":
        return String.valueOf(files.delete(path(first), true));
      case "mkdirs":
        return String.valueOf(files.mkdirs(path(first)));
      case "rename":
        files.rename(path(first), path(text(words[2])), org.apache.hadoop.fs.Options.Rename.OVERWRITE);
        return "";
      case "names":
        StringBuilder names = new StringBuilder();
        for (FileStatus status : files.listStatus(path(first))) {
          names.append(status.getPath().getName()).append('\n');
        }
        return names.toString();
      case "quota":
        files.setQuota(path(first), Long.parseLong(text(words[2])), Long.parseLong(text(words[3])));
        return "";
      case "chmod":
        files.setPermission(path(first), new FsPermission(text(words[2])));
        return "";
      case "chown":
        files.setOwner(path(first), text(words[2]), text(words[3]));
        return "";
      case "touch":
        files.setTimes(path(first), Long.parseLong(text(words[2])), -1);
        return "";
      case "hold":
        FSDataOutputStream open = files.create(path(first), true);
        open.write(words[2]);
        open.hflush();
        held.put(first, open);
        return "";
      case "close":
        held.remove(first).close();
        return "";
      case "token":
        return files.getDelegationToken(first).encodeToUrlString();
      case "gateway":
        return String.valueOf(startGateway());
      case "servers":
        change(first);
        return "";
      default:
        throw new IllegalArgumentException(command);
    }
  }

  /** Makes an empty file in the name node itself: many of them take seconds over its protocol. */
  private void makeEmpty(String path) {
    try {
      ClientProtocol names = nameNodes.get(0).getRpcServer();
      HdfsFileStatus made =
          names.create(
              path,
              FsPermission.getFileDefault(),
              "rig",
              new EnumSetWritable<>(EnumSet.of(CreateFlag.CREATE)),
              true,
              (short) 1,
              1 << 20,
              CryptoProtocolVersion.supported(),
              null,
              null);
      names.complete(path, "rig", null, made.getFileId());
    } catch (java.io.IOException error) {
      throw new java.io.UncheckedIOException(error);
    }
  }

  /** Starts HttpFS in front of the name nodes; returns its port. */
  private synchronized int startGateway() throws Exception {
    if (gatewayPort > 0) {
      // There can be one in a process.
      return gatewayPort;
    }
    Path home = dir.resolve("httpfs");
    for (String part : new String[] {"conf", "log", "temp"}) {
      Files.createDirectories(home.resolve(part));
    }
    System.setProperty("httpfs.home.dir", home.toString());
    Files.writeString(home.resolve("conf/httpfs-signature.secret"), "rig");
    try (OutputStream site = Files.newOutputStream(home.resolve("conf/core-site.xml"))) {
      client.writeXml(site);
    }
    Configuration conf = new Configuration(client);
    conf.addResource("httpfs-default.xml");
    conf.set("hadoop.http.temp.dir", home.resolve("temp").toString());
    HttpServer2 gateway =
        new HttpServer2.Builder()
            .setName("webhdfs")
            .setConf(conf)
            .addEndpoint(URI.create("http://127.0.0.1:0"))
            .build();
    gateway.start();
    // It took away the name nodes' own, which are in this process.
    ProxyUsers.refreshSuperUserGroupsConfiguration(client);
    gatewayPort = gateway.getConnectorAddress(0).getPort();
    return gatewayPort;
  }

  private synchronized void change(String what) throws Exception {
    switch (what) {
      case "no data node":
        dataNode.shutdown();
        break;
      case "data node":
        startDataNode();
        await();
        break;
      case "safe mode":
        files.setSafeMode(SafeModeAction.SAFEMODE_ENTER);
        break;
      case "no safe mode":
        files.setSafeMode(SafeModeAction.SAFEMODE_LEAVE);
        break;
      case "other name node":
        active(nameNodes.get(0).isActiveState() ? 1 : 0);
        break;
      default:
        throw new IllegalArgumentException(what);
    }
  }

  private static String text(byte[] bytes) {
    return new String(bytes, StandardCharsets.UTF_8);
  }

  private static org.apache.hadoop.fs.Path path(String path) {
    return new org.apache.hadoop.fs.Path(null, null, path);
  }

  private void endWithInput() {
    Thread watch =
        new Thread(
            () -> {
              try {
                while (System.in.read() >= 0) {}
              } catch (java.io.IOException gone) {
                // As good as an end.
              }
              FileUtils.deleteQuietly(dir.toFile());
              Runtime.getRuntime().halt(0);
            });
    watch.setDaemon(true);
    watch.start();
  }
}
